//! Traces: a span for each sampled request, with children for its steps and its attempts, sent to a collector by OTLP.
//!
//! A request keeps a few times while it lasts ([`RequestTrace`]), and becomes spans when it is over. Nobody waits for the collector: what
//! does not fit into the queue is dropped and counted.

mod context;
mod export;
mod request;
mod spans;

use std::time::Duration;

use http::HeaderMap;
use tokio::sync::mpsc::{self, error::TrySendError};

use super::access::AccessRecord;
use super::metrics::TraceMetrics;
use crate::config::OtlpSettings;
use opentelemetry_sdk::trace::SpanData;

pub(crate) use context::trace_id;
pub(crate) use export::{TraceError, TraceExport};

pub(crate) use request::AttemptTrace;
pub use request::RequestTrace;

/// Requests whose spans wait to be sent. A span takes about 1 KiB.
const MAX_WAITING: usize = 4_096;

/// Begins the traces of requests, and takes them when they are over.
#[derive(Clone)]
pub(crate) struct Traces {
    sender: mpsc::Sender<Vec<SpanData>>,
    sample: u32,
    metrics: TraceMetrics,
}

impl Traces {
    /// Starts to send to a collector. Must be called on the runtime that is to send.
    ///
    /// # Errors
    /// [`TraceError`] when the settings can't be used. Whether the collector answers shows later, in the log.
    pub(crate) fn start(settings: &OtlpSettings, metrics: TraceMetrics) -> Result<(Self, TraceExport), TraceError> {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let export = TraceExport::start(settings, metrics.clone(), receiver)?;
        Ok((Self { sender, sample: settings.sample, metrics }, export))
    }

    /// Begins the trace of a request, or goes on with that of its client.
    // Cold, as the other steps of a trace are: out of the way of requests that are not traced.
    #[cold]
    pub(crate) fn begin(&self, headers: &HeaderMap) -> RequestTrace {
        RequestTrace::begin(context::parent(headers), self.sample)
    }

    /// The request is over: its spans are sent if it was sampled.
    #[cold]
    pub(crate) fn finish(&self, trace: &RequestTrace, record: &AccessRecord, took: Duration) {
        if !trace.is_sampled() {
            return;
        }
        let spans = spans::of_request(trace, record, took);
        if let Err(TrySendError::Full(spans) | TrySendError::Closed(spans)) = self.sender.try_send(spans) {
            self.metrics.dropped.inc_by(spans.len() as u64);
        }
    }
}
