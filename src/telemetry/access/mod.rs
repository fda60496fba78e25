//! The access log: one line per request, written when the request ends.
//!
//! It does without `tracing`, whose JSON layer takes ten times as long as [`json_line`].

mod line;
mod opened;
mod record;

use std::fmt::Display;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::log_queue::LogWriter;
use crate::config::LogFormat;

use super::text::visible_line;

use line::human_line;
use opened::{human_opened, json_opened};

pub use line::json_line;
pub use record::{AccessRecord, Phase, WindowUse};

/// Writes the lines.
#[derive(Clone)]
pub struct AccessLog {
    writer: LogWriter,
    format: LogFormat,
    /// Whether `log.access` asks for the lines.
    is_on: Arc<AtomicBool>,
}

impl AccessLog {
    pub(super) fn new(writer: LogWriter, format: LogFormat, is_on: Arc<AtomicBool>) -> Self {
        Self { writer, format, is_on }
    }

    /// Drops the line when the queue is full.
    pub fn write(&self, record: &AccessRecord) {
        self.write_line(|| json_line(record), || human_line(record));
    }

    /// Writes that a request has become a call of this name and kind.
    pub(crate) fn write_opened(&self, record: &AccessRecord, call: &dyn Display, kind: &str, account: Option<&str>) {
        let human = || human_opened(record, call, kind, account);
        self.write_line(|| json_opened(record, call, kind, account), human);
    }

    fn write_line(&self, json: impl FnOnce() -> String, human: impl FnOnce() -> String) {
        if !self.is_on.load(Ordering::Relaxed) {
            return;
        }
        // The queue takes whole lines or none, and counts those that it drops.
        let _ = match self.format {
            LogFormat::Json => self.writer.clone().write_all(json().as_bytes()),
            LogFormat::Human => self.writer.clone().write_all(visible_line(&human()).as_bytes()),
        };
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
        for format in [LogFormat::Json, LogFormat::Human] {
            let output = Output::default();
            let (writer, guard, _) = LogWriter::start(output.clone(), format);
            let mut record = record();
            record.uri = "/\u{9b}2J\u{202e}gnp\u{2028}forged".parse().unwrap();
            record.windows[0].name = "a\u{1b}[31m".into();
            record.error = Some("\u{9b}1m\nforged\u{2066}".into());
            AccessLog::new(writer, format, Arc::new(true.into())).write(&record);
            drop(guard);
            let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
            let line = text.strip_suffix('\n').unwrap();
            assert!(line.contains(r"/\u009b2J\u202egnp\u2028forged"), "{line}");
            assert!(line.contains("a\\u001b[31m") && line.contains(r"\u009b1m\u000aforged\u2066"), "{line}");
            assert!(line.bytes().all(|byte| matches!(byte, 0x20..=0x7e)), "{line:?}");
        }
    }
}
