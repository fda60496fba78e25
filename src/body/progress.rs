//! When something last moved, for those who wait for it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::error::BodyFault;

/// When a body, a call or a connection last moved, and how a body broke off: not every error of hyper's that this causes tells.
#[derive(Debug)]
pub(crate) struct Progress {
    began: Instant,
    last_ms: AtomicU64,
    /// The next piece is awaited from its sender.
    awaited: AtomicBool,
    pub(super) fault: OnceLock<BodyFault>,
}

impl Progress {
    /// Begins now.
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            last_ms: AtomicU64::new(0),
            awaited: AtomicBool::new(false),
            fault: OnceLock::new(),
        }
    }

    /// Something moved.
    pub(crate) fn note(&self) {
        // 64 bits of milliseconds outlast every body.
        self.last_ms.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.awaited.store(false, Ordering::Relaxed);
    }

    /// The receiver would take more, and there is none.
    pub(super) fn awaits(&self) {
        self.awaited.store(true, Ordering::Relaxed);
    }

    /// How long the receiver has left everybody waiting: nothing has moved, and not for want of a next piece.
    pub(crate) fn hesitation(&self) -> Duration {
        if self.awaited.load(Ordering::Relaxed) { Duration::ZERO } else { self.silence() }
    }

    /// How the body broke off, if it did.
    pub(crate) fn fault(&self) -> Option<BodyFault> {
        self.fault.get().copied()
    }

    /// How long nothing has moved.
    pub(crate) fn silence(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }
}
