//! The log: a bounded queue to standard output or a file that never makes a worker wait.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::config::{LogFormat, LogSettings};

use super::Metrics;
use super::access::{AccessLog, AccessSettings};
use super::cells::Counter;
use super::line_format::LineFormat;
use super::log_file::LogFileWriter;
use super::log_queue::{LogGuard, LogQueue, LogWriter};
use super::visible_writer::VisibleWriter;

/// The queue of this process.
static QUEUE: OnceLock<Arc<LogQueue>> = OnceLock::new();

/// Why logging can't start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.level` is not a filter.
    #[error("log.level is not a filter")]
    Level(#[from] ParseError),
    /// Standard output can't be used.
    #[error("standard output")]
    Output(#[from] io::Error),
    /// The file can't be opened.
    #[error("log.file: {path}")]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The process has a logger already.
    #[error("the process has a logger already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Changes what is logged while the process runs.
#[derive(Clone)]
pub struct LogControl {
    filter: reload::Handle<Targets, Registry>,
    access: Arc<AccessSettings>,
    /// Set to open the file again, if there is one.
    reopen: Option<Arc<AtomicBool>>,
}

impl LogControl {
    /// Follows other settings. Their format is that of the start.
    ///
    /// # Errors
    /// When `log.level` is not a filter; nothing has changed then.
    pub fn follow(&self, log: &LogSettings) -> Result<(), LogError> {
        self.set_level(&log.level)?;
        self.access.follow(log);
        Ok(())
    }

    /// Opens the file of the log again before the next line, if there is one: it may have been moved.
    pub fn reopen(&self) {
        self.reopen.iter().for_each(|reopen| reopen.store(true, Ordering::Relaxed));
    }

    /// Filters diagnostics by another `log.level`.
    ///
    /// # Errors
    /// When it is not a filter; nothing has changed then.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        let filter = filter(level)?;
        // The subscriber lives as long as the process.
        let _ = self.filter.reload(filter);
        Ok(())
    }
}

/// Libraries log every frame and handshake; `log.level` can ask for that by name.
fn filter(level: &str) -> Result<Targets, ParseError> {
    format!("hyper=info,h2=warn,rustls=warn,redis=warn,{level}").parse()
}

/// Sets up the diagnostics of the process and the access log; both go to standard output or
/// the file of the settings. `format`: in place of that of the settings.
///
/// # Errors
/// [`LogError`].
pub fn init(
    log: &LogSettings,
    format: Option<LogFormat>,
    metrics: &Metrics,
) -> Result<(AccessLog, LogControl, LogGuard), LogError> {
    let format = LineFormat::new(format.unwrap_or(log.format), log.file.is_none() && io::stdout().is_terminal());
    let (output, reopen): (Box<dyn Write + Send>, _) = match &log.file {
        Some(file) => {
            let failed = |source| LogError::File { path: file.path.clone(), source };
            let (output, reopen) = LogFileWriter::open(file.clone()).map_err(failed)?;
            (Box::new(output), Some(reopen))
        }
        // A file of its own has no buffer that an error could leave half written.
        None => (Box::new(File::from(io::stdout().as_fd().try_clone_to_owned()?)), None),
    };
    let (writer, guard) = LogWriter::start(output, format, metrics.log_dropped.clone())?;
    let (filter, handle) = reload::Layer::new(filter(&log.level)?);
    let has_colours = format == LineFormat::Human { has_colours: true };
    let visible = {
        let writer = writer.clone();
        move || VisibleWriter::new(writer.clone(), has_colours)
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(visible);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LineFormat::Json => registry.with(lines.json().flatten_event(true).with_current_span(false)).try_init()?,
        LineFormat::Human { .. } => registry.with(lines.with_target(false).with_ansi(has_colours)).try_init()?,
    }
    // A second one can't come here.
    let _ = QUEUE.set(guard.0.clone());
    let access = Arc::new(AccessSettings::new(log));
    let sampled_out = metrics.log_sampled_out.clone();
    Ok((
        AccessLog::new(writer, format, access.clone(), sampled_out),
        LogControl { filter: handle, access, reopen },
        guard,
    ))
}

/// Writes what is queued, in a process that exits before its [`LogGuard`] is dropped.
pub(crate) fn write_last_lines() {
    QUEUE.get().inspect(|queue| queue.end());
}

/// An access log alone.
pub(crate) fn access_log(output: impl Write + Send + 'static, log: &LogSettings) -> io::Result<(AccessLog, LogGuard)> {
    let format = LineFormat::new(log.format, false);
    let (writer, guard) = LogWriter::start(output, format, Counter::default())?;
    Ok((AccessLog::new(writer, format, Arc::new(AccessSettings::new(log)), Counter::default()), guard))
}
