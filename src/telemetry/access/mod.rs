//! The access log: one line per request, written when the request ends, by a writer of its own.
//!
//! An event through `tracing`'s JSON layer costs ten times what one hand-made line costs; there is one per request.

mod line;

use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderValue, Method, StatusCode, Uri, Version};
use smallvec::SmallVec;
use tracing_appender::non_blocking::NonBlocking;

use crate::config::LogFormat;

use line::human_line;

pub use line::json_line;

/// A stretch of a request's life that is timed.
#[derive(Debug, Clone, Copy)]
pub enum Phase {
    /// Finding out who asks.
    Auth,
    /// Asking the limiter.
    Decision,
    /// From sending the request to the upstream to the head of its response.
    Upstream,
}

/// One window of a decision: how many requests were counted in it, of how many.
#[derive(Debug, Clone)]
pub struct WindowUse {
    /// The limit's name.
    pub name: Arc<str>,
    /// Requests counted.
    pub used: u32,
    /// Requests allowed.
    pub limit: u32,
}

/// What is known of one request when it ends.
#[derive(Debug)]
pub struct Record {
    /// When its head was there.
    pub started: Instant,
    /// The same on the wall clock.
    pub received: SystemTime,
    /// Who asked, by address: behind trusted proxies, the address they give.
    pub client: IpAddr,
    /// As the client sent it; a hyphen for what was no request.
    pub method: Method,
    /// As the client sent it; only its path is logged.
    pub uri: Uri,
    /// Of the client's side.
    pub version: Version,
    /// The id that the answer and the upstream carry too.
    pub request_id: HeaderValue,
    /// The route's name, once there is one.
    pub route: Option<Arc<str>>,
    /// The token's id and name, once it is known.
    pub token: Option<(Arc<str>, Arc<str>)>,
    /// The status of the answer; 499 when the client went away before there was one.
    pub status: StatusCode,
    /// The code of a rejection.
    pub rejection: Option<&'static str>,
    /// What went wrong, for the log only.
    pub error: Option<Box<str>>,
    /// The upstream that its route chose.
    pub upstream: Option<Arc<str>>,
    /// The endpoint that answered.
    pub endpoint: Option<Arc<str>>,
    /// How often endpoints were asked for it: once, and once more for each retry.
    pub attempts: u32,
    /// What decided, when a limit was asked.
    pub decided_by: Option<&'static str>,
    /// Both windows' counts.
    pub windows: SmallVec<[WindowUse; 2]>,
    /// Whether the limits denied it and it was forwarded all the same, because its plan is on trial.
    pub shadow_denied: bool,
    /// Time spent by phase.
    pub phases: [Option<Duration>; 3],
    /// Bytes of the answer's body (of a call: from the upstream).
    pub bytes_out: u64,
    /// Bytes of a call from the client.
    pub bytes_in: u64,
    /// Messages of a call from the client, and from the upstream.
    pub messages: Option<[u64; 2]>,
    /// The client or the upstream went away before the answer's end.
    pub cut: bool,
    /// Who ended a call or a stream: `client`, `upstream` or `gateway`.
    pub ended_by: Option<&'static str>,
}

impl Record {
    /// Notes how long a phase took.
    pub fn phase(&mut self, phase: Phase, took: Duration) {
        self.phases[phase as usize] = Some(took);
    }
}

/// Writes records.
#[derive(Clone)]
pub struct AccessLog {
    writer: Option<NonBlocking>,
    format: LogFormat,
}

impl AccessLog {
    pub(super) fn new(writer: Option<NonBlocking>, format: LogFormat) -> Self {
        Self { writer, format }
    }

    /// A log that writes nothing.
    #[must_use]
    pub fn off() -> Self {
        Self { writer: None, format: LogFormat::Json }
    }

    /// Writes the line of one request, or drops it when the queue is full.
    pub fn write(&self, record: &Record) {
        let Some(writer) = &self.writer else { return };
        let line = match self.format {
            LogFormat::Json => json_line(record),
            LogFormat::Human => human_line(record),
        };
        // The queue takes whole lines or none; it counts what it drops.
        let _ = writer.clone().write_all(line.as_bytes());
    }
}
