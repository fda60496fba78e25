//! Every answer that Callgate makes itself, and the headers stamped on all answers.

mod browser;
mod grpc;
mod json;
mod message;
mod options;
mod rejection;
mod stamps;

pub use browser::{preflight, stamp_cors};
pub use options::options;
pub use rejection::Rejection;
pub use stamps::{stamp_limits, stamp_request_id, stamp_shadow_denial};
