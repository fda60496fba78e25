//! The access log: one line per request, written when the request ends.
//!
//! It does without `tracing`, whose JSON layer takes ten times as long as [`push_json_line`].

mod client_text;
mod human;
mod line;
mod opened;
mod record;

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::cells::Counter;
use super::line_format::LineFormat;
use super::log_queue::LogWriter;
use super::text::make_visible;
use crate::config::{LogSettings, LogShare};

use human::push_human_line;
use opened::{human_opened, json_opened};

pub use line::push_json_line;
pub use record::{AccessRecord, Phase, WindowUse};

/// Writes the lines.
#[derive(Clone)]
pub struct AccessLog {
    writer: LogWriter,
    format: LineFormat,
    settings: Arc<AccessSettings>,
    sampled_out: Counter,
}

/// What of the settings may change while the process runs.
pub(super) struct AccessSettings {
    /// Whether `log.access` asks for the lines.
    is_on: AtomicBool,
    max_text: AtomicUsize,
}

impl AccessSettings {
    pub(super) fn new(log: &LogSettings) -> Self {
        Self { is_on: log.access.into(), max_text: log.max_text.into() }
    }

    pub(super) fn follow(&self, log: &LogSettings) {
        self.is_on.store(log.access, Ordering::Relaxed);
        self.max_text.store(log.max_text, Ordering::Relaxed);
    }
}

impl AccessLog {
    pub(super) fn new(
        writer: LogWriter,
        format: LineFormat,
        settings: Arc<AccessSettings>,
        sampled_out: Counter,
    ) -> Self {
        Self { writer, format, settings, sampled_out }
    }

    /// The same log for a worker, which has a buffer of its own.
    pub(crate) fn for_worker(&self) -> Self {
        Self { writer: self.writer.for_worker(), ..self.clone() }
    }

    /// Whether there are to be lines.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.settings.is_on.load(Ordering::Relaxed)
    }

    /// Writes the line of a request that took so long, with the windows of its decision; drops it when the queue is full.
    pub fn write(&self, record: &AccessRecord, windows: &[WindowUse<'_>], took: Duration) {
        let max_text = self.max_text();
        self.writer.write_line(|lines| match self.format {
            LineFormat::Json => push_json_line(lines, record, windows, took, max_text),
            LineFormat::Human { has_colours } => {
                push_human_line(lines, record, windows, took, max_text, has_colours);
            }
        });
    }

    /// Whether a request that went well is left out, which is counted. Its id decides, so all instances that a request passes agree.
    pub(crate) fn leaves_out(&self, record: &AccessRecord, share: LogShare) -> bool {
        let is_left_out = record.is_unremarkable() && !share.takes(|| crc32fast::hash(record.request_id.as_bytes()));
        if is_left_out {
            self.sampled_out.inc();
        }
        is_left_out
    }

    /// Writes that a request has become a call of this name and kind.
    pub(crate) fn write_opened(&self, record: &AccessRecord, call: &dyn Display, kind: &str) {
        if !self.is_on() {
            return;
        }
        let max_text = self.max_text();
        self.writer.write_line(|lines| match self.format {
            LineFormat::Json => lines.push_str(&json_opened(record, call, kind, max_text)),
            LineFormat::Human { .. } => {
                let begin = lines.len();
                lines.push_str(&human_opened(record, call, kind, max_text));
                make_visible(lines, begin);
            }
        });
    }

    fn max_text(&self) -> usize {
        self.settings.max_text.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use super::line::tests::record;
    use super::*;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Nothing of a client's moves a terminal's cursor, begins a line, or turns around what is read.
    #[test]
    fn no_line_of_either_form_has_anything_hidden() {
        for format in [LineFormat::Json, LineFormat::Human { has_colours: false }] {
            let output = Output::default();
            let (writer, guard) = LogWriter::start(output.clone(), format, Counter::default()).unwrap();
            let mut record = record();
            record.uri = "/\u{9b}2J\u{202e}gnp\u{2028}forged".parse().unwrap();
            let windows = [WindowUse { name: "a\u{1b}[31m", used: 60, limit: 60 }];
            record.error = Some("\u{9b}1m\nforged\u{2066}".into());
            let settings = AccessSettings { is_on: true.into(), max_text: 1_024.into() };
            AccessLog::new(writer, format, Arc::new(settings), Counter::default()).write(
                &record,
                &windows,
                Duration::ZERO,
            );
            drop(guard);
            let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
            let line = text.strip_suffix('\n').unwrap();
            assert!(line.contains(r"/\u009b2J\u202egnp\u2028forged"), "{line}");
            assert!(line.contains("a\\u001b[31m") && line.contains(r"\u009b1m\u000aforged\u2066"), "{line}");
            assert!(line.bytes().all(|byte| matches!(byte, 0x20..=0x7e)), "{line:?}");
        }
    }
}
