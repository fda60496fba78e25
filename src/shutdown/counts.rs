//! What a drain waits for, by number: each worker counts for itself, and the numbers are summed when somebody looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// A client's connection, for as long as something of it is left.
    Connection,
    /// A request, from its head to the end of its answer; a call is one, too.
    Request,
    /// A call.
    Call,
}

/// The counters of one worker. No other worker writes to their cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Counts {
    cells: [AtomicUsize; 3],
}

/// One that is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct CountGuard {
    counts: Arc<Counts>,
    what: Counted,
}

impl Counts {
    pub(super) fn add(&self, what: Counted) {
        self.cells[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, what: Counted) {
        self.cells[what as usize].fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn of(&self, what: Counted) -> usize {
        self.cells[what as usize].load(Ordering::Relaxed)
    }
}

impl CountGuard {
    pub(super) fn new(counts: &Arc<Counts>, what: Counted) -> Self {
        counts.add(what);
        Self { counts: counts.clone(), what }
    }
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        self.counts.remove(self.what);
    }
}
