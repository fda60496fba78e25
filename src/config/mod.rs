//! Configuration: one YAML file, compiled into a validated form.

mod model;
mod plan;
mod secret;

pub use model::{
    Access, CallLimits, CertificateFiles, Config, Drain, Endpoint, HostHeader, Limits, Listen, Log, LogFormat,
    OnFailure, PathForms, REQUEST_ID, RedisStore, Route, Runtime, Store, Tls, Tokens, Upstream,
};
pub use plan::{Limit, MAX_COUNT, Plan, WINDOW_MS};
pub use secret::Secret;
