//! Every answer that Callgate makes itself, and the headers stamped on all answers.

mod grpc;
mod json;
mod message;
mod options;
mod rejection;
mod stamps;

pub use grpc::grpc_trailers;
pub use options::{options, preflight};
pub use rejection::Rejection;
pub use stamps::{stamp_cors, stamp_limits, stamp_request_id, stamp_shadow_denial};
