//! The access log: one line per request, written when the request ends.
//!
//! It does without `tracing`, whose JSON layer takes ten times as long as [`json_line`].

mod line;
mod record;

use std::io::Write as _;

use super::log_queue::LogWriter;
use crate::config::LogFormat;

use line::human_line;

pub use line::json_line;
pub use record::{AccessRecord, Phase, WindowUse};

/// Writes the lines.
#[derive(Clone)]
pub struct AccessLog {
    writer: Option<LogWriter>,
    format: LogFormat,
}

impl AccessLog {
    pub(super) fn new(writer: Option<LogWriter>, format: LogFormat) -> Self {
        Self { writer, format }
    }

    /// Drops the line when the queue is full.
    pub fn write(&self, record: &AccessRecord) {
        let Some(writer) = &self.writer else { return };
        let line = match self.format {
            LogFormat::Json => json_line(record),
            LogFormat::Human => human_line(record),
        };
        // The queue takes whole lines or none, and counts those that it drops.
        let _ = writer.clone().write_all(line.as_bytes());
    }
}
