//! The log: a bounded queue to standard output that never makes a worker wait.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, LogSettings};

use super::Metrics;
use super::access::AccessLog;
use super::visible_writer::VisibleWriter;

/// Bytes that one write may have.
const MAX_BATCH_BYTES: usize = 64 * 1024;

/// Why logging can't start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.level` is not a filter.
    #[error("log.level is not a filter")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// The process has a logger already.
    #[error("the process has a logger already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Writes what is queued when it is dropped.
pub struct LogGuard {
    _worker: WorkerGuard,
    dropped: ErrorCounter,
    metrics: Arc<Metrics>,
}

impl LogGuard {
    /// Updates the metric of dropped lines once a second, for ever.
    pub async fn watch(self) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tick.tick().await;
            let dropped = self.dropped.dropped_lines() as u64;
            self.metrics.log_dropped.inc_by(dropped.saturating_sub(self.metrics.log_dropped.get()));
        }
    }
}

/// Sets up the diagnostics of the process and the access log; both go to standard output.
///
/// # Errors
/// [`LogError`].
pub fn init(log: &LogSettings, metrics: Arc<Metrics>) -> Result<(AccessLog, LogGuard), LogError> {
    // The writer's thread flushes when its queue is empty, so queued lines become one write.
    let output = io::BufWriter::with_capacity(MAX_BATCH_BYTES, io::stdout());
    let (writer, worker) = NonBlockingBuilder::default().thread_name("callgate-log").finish(output);
    let guard = LogGuard { _worker: worker, dropped: writer.error_counter(), metrics };
    // Libraries log every frame and handshake; log.level can ask for that by name.
    let filter: Targets = format!("hyper=info,h2=warn,rustls=warn,redis=warn,{}", log.level).parse()?;
    let has_colours = log.format == LogFormat::Human && io::stdout().is_terminal();
    let visible = {
        let writer = writer.clone();
        move || VisibleWriter::new(writer.clone(), has_colours)
    };
    let lines = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(visible);
    match log.format {
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(false).finish().with(filter).try_init()?;
        }
        LogFormat::Human => {
            lines.with_target(false).with_ansi(has_colours).finish().with(filter).try_init()?;
        }
    }
    Ok((AccessLog::new(log.access.then_some(writer), log.format), guard))
}
