//! `log`, validated: what is logged, and in which form.

use std::path::PathBuf;
use std::sync::Arc;

/// Access log and diagnostics.
#[derive(Debug, Clone, PartialEq)]
pub struct LogSettings {
    /// The form of the lines.
    pub format: LogFormat,
    /// Where the lines go in place of standard output.
    pub file: Option<LogFile>,
    /// A filter as of `tracing_subscriber::filter::Targets`, for example `info` or `callgate=debug`.
    pub level: Arc<str>,
    /// One line per request.
    pub access: bool,
    /// Bytes of a text of a client's in an access line, 64 to 16,384. Longer ones are cut.
    pub max_text: usize,
    /// Which successful requests of routes without a share of their own have a line.
    pub success: LogShare,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Human on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// A file of log lines, opened again at each reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// The file; the older ones are beside it, with `.1` and so on added.
    pub path: PathBuf,
    /// Bytes after which it becomes an older one; `None`: something else rotates it.
    pub max_size: Option<u64>,
    /// Older files that are kept.
    pub keep: u32,
}

/// A share of requests, in parts of 2³².
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogShare(u64);

impl LogShare {
    /// All requests.
    pub const ALL: Self = Self(1 << 32);

    /// From 0, no request, to 1, all of them.
    pub fn new(share: f64) -> Self {
        // Saturates, so that nothing is more than all.
        Self(((share * 2f64.powi(32)).round() as u64).min(Self::ALL.0))
    }

    /// Whether a request with this hash of its id is in it.
    pub fn takes(self, hash: impl FnOnce() -> u32) -> bool {
        self == Self::ALL || u64::from(hash()) < self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_takes_the_hashes_below_it() {
        for (share, taken, left) in [(0.5, (1 << 31) - 1, 1 << 31), (0.25, (1 << 30) - 1, 1 << 30)] {
            assert!(LogShare::new(share).takes(|| taken) && !LogShare::new(share).takes(|| left));
        }
        assert!(!LogShare::new(0.0).takes(|| 0));
        assert!(LogShare::new(1.0).takes(|| u32::MAX));
        assert_eq!(LogShare::new(1.0), LogShare::ALL);
    }
}
