//! The connection to the Redis that all instances share: one server, a cluster, or the primary that sentinels name. Each worker
//! has its own pipelined connections, healed in the background.
//!
//! A call either answers within its deadline or fails at once: while the connection is down nothing waits for it.

mod client;
mod cluster;
mod dial;
mod error;
mod health;
mod late;
mod link;
mod outage;
mod pipeline;
mod request;
mod resp;
mod retention;
mod script;
mod sentinel;
mod slots;
mod subscription;

pub use client::Redis;
pub use dial::OpenError;
pub use error::StoreError;
pub use health::StoreHealth;
pub use late::LateAnswer;
pub use link::Recovery;
pub(crate) use request::Request;
pub(crate) use resp::{write_bulk, write_bulk_of, write_number};
pub use retention::Retention;
pub use script::Script;
pub use subscription::{ChannelEvent, Subscription};
