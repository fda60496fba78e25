//! Admissions of one log on their way to Redis.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Offered, PendingMerges};

/// A Redis that refuses to merge a log is not asked to by every request for it: each would wait for all before it.
const REFUSED: Duration = Duration::from_secs(1);

/// Admissions to be merged into one log, by who holds this and by nobody else. Unless it is [`Offer::settle`]d they are
/// offered again.
pub(in crate::limits) struct Offer {
    pub(super) journal: Arc<PendingMerges>,
    pub(super) log: Arc<[u8]>,
    pub(super) windows: Arc<[u32]>,
    pub(super) offered: Arc<Offered>,
    pub(super) settled: bool,
    pub(super) refused: bool,
    /// Dropped, it tells who waits.
    pub(super) _done: watch::Sender<()>,
}

impl Offer {
    /// The log's key.
    pub(in crate::limits) fn log(&self) -> &[u8] {
        &self.log
    }

    /// Its name, the same when it is offered again.
    pub(in crate::limits) fn name(&self) -> &[u8] {
        &self.offered.name
    }

    /// The windows of its limits, 4 bytes each.
    pub(in crate::limits) fn windows(&self) -> Vec<u8> {
        self.windows.iter().flat_map(|length| length.to_le_bytes()).collect()
    }

    /// How many milliseconds before `now` each admission was, the latest first, 4 bytes each.
    pub(in crate::limits) fn ages(&self, now: Instant) -> Vec<u8> {
        let now_ms = self.journal.ms(now);
        let age = |at_ms: &u64| u32::try_from(now_ms.saturating_sub(*at_ms)).unwrap_or(u32::MAX);
        self.offered.times.iter().flat_map(|at_ms| age(at_ms).to_le_bytes()).collect()
    }

    /// Redis has them.
    pub(in crate::limits) fn settle(mut self) {
        self.settled = true;
    }

    /// Redis answers, but does not take them.
    pub(in crate::limits) fn refuse(mut self) {
        self.refused = true;
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        let mut book = self.journal.book();
        let Some(page) = book.pages.get_mut(&self.log) else { return };
        page.claim = None;
        page.refused_until = self.refused.then(|| Instant::now() + REFUSED);
        if !self.settled {
            return;
        }
        page.offered = None;
        let is_last = page.times.is_empty();
        if is_last {
            book.pages.remove(&self.log);
            if book.pages.is_empty() {
                book.queue = VecDeque::new();
            }
        }
        let admissions = self.offered.times.len();
        book.merged.admissions += admissions;
        book.merged.logs += usize::from(is_last);
        self.journal.shrink(admissions);
        if let Some(metrics) = &self.journal.metrics {
            metrics.merged.inc_by(admissions as u64);
        }
    }
}
