//! What keeps a process from starting, as lines of the log that it was to have.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use serde_json::json;
use tracing::dispatcher;

use super::line_format::LineFormat;
use super::log::write_last_lines;
use crate::color::label;
use crate::config::LogFormat;

/// The log of a process that does not serve yet. Programs that read the log find JSON in it; people at a terminal read standard error.
pub(crate) struct StartLog {
    format: LineFormat,
    is_terminal: bool,
}

impl StartLog {
    /// `format`: that of the log.
    pub(crate) fn new(format: LogFormat) -> Self {
        let is_terminal = io::stdout().is_terminal();
        Self { format: LineFormat::new(format, is_terminal), is_terminal }
    }

    /// Something keeps the process from starting.
    pub(crate) fn error(&self, what: impl Display) {
        let what = what.to_string();
        let is_logged = if dispatcher::has_been_set() {
            tracing::error!("{what}");
            write_last_lines();
            true
        } else {
            self.write("ERROR", &what)
        };
        self.show("error", &what, is_logged);
    }

    /// Somebody should look at something.
    pub(crate) fn warn(&self, what: impl Display) {
        let what = what.to_string();
        let is_logged = self.write("WARN", &what);
        self.show("warning", &what, is_logged);
    }

    /// Writes a line of a JSON log; returns whether the log is one.
    fn write(&self, level: &str, what: &str) -> bool {
        if self.format != LineFormat::Json {
            return false;
        }
        let time = humantime::format_rfc3339_micros(std::time::SystemTime::now()).to_string();
        let line = json!({ "timestamp": time, "level": level, "message": what });
        // Nobody can be told of an output that is closed.
        let _ = writeln!(io::stdout(), "{line}");
        true
    }

    /// Shows it to people, unless they see it in the log.
    fn show(&self, level: &str, what: &str, is_logged: bool) {
        if !is_logged || (io::stderr().is_terminal() && !self.is_terminal) {
            let _ = writeln!(io::stderr(), "{} {what}", label(level));
        }
    }
}
