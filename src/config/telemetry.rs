//! Traces: where they are sent, and which requests have one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Secret;

/// Traces in OpenTelemetry's protocol (OTLP).
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpSettings {
    /// The URL of the collector; with HTTP, that of its traces.
    pub endpoint: Arc<str>,
    /// How to speak to it.
    pub protocol: OtlpProtocol,
    /// The share of requests that are traced, in parts of [`FULL_SHARE`](super::FULL_SHARE), where no one in front has decided.
    pub sample: u32,
    /// The name of this service in traces.
    pub service_name: Arc<str>,
    /// Headers of each message to the collector.
    pub headers: Vec<(Arc<str>, Secret)>,
    /// Trusted certificates in place of the system's.
    pub ca: Option<PathBuf>,
    /// The longest time for one message.
    pub timeout: Duration,
}

/// How to speak to a collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// gRPC, usually on port 4317.
    Grpc,
    /// Protobuf over HTTP/1.1, usually on port 4318.
    Http,
}
