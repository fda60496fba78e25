//! How far a long command is: one line on standard error that changes, where that is a terminal.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// The line changes at most once in so long.
const INTERVAL: Duration = Duration::from_millis(100);

/// The line, which is removed when this is dropped.
pub(crate) struct Progress {
    is_shown: bool,
    last: Cell<Option<Instant>>,
}

impl Progress {
    /// Shows nothing unless standard error is a terminal.
    pub(crate) fn on_terminal() -> Self {
        Self { is_shown: io::stderr().is_terminal(), last: Cell::new(None) }
    }

    /// A step has begun.
    pub(crate) fn step(&self, what: &str) {
        if self.is_shown {
            self.last.set(Some(Instant::now()));
            // A terminal that is gone shows nothing.
            let _ = write!(io::stderr(), "\r\u{1b}[K{what} …");
        }
    }

    /// `done` of `all` are done.
    pub(crate) fn count(&self, what: &str, done: usize, all: usize) {
        if self.last.get().is_none_or(|last| last.elapsed() >= INTERVAL) {
            self.step(&format!("{what}: {done} of {all} ({} %)", done * 100 / all.max(1)));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.last.get().is_some() && self.is_shown {
            let _ = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}
