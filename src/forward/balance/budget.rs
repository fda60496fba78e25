//! The retry budget: a share of the requests, or a number per second, whichever is more. When everything fails, retries are load on
//! endpoints that can't bear it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::per_worker::Numbers;

/// Requests and retries are compared over this many seconds.
const WINDOW: usize = 10;

/// The requests and retries of the last seconds.
pub(super) struct Budget {
    percent: u64,
    min_per_second: u64,
    requests: RequestCounts,
    retries: RetryCounts,
}

/// Requests of the last seconds, each in one word with its second. Each worker counts its own.
struct RequestCounts(Numbers);

/// The same of retries. They are few, and must not be too many: all workers count them in one place.
struct RetryCounts([AtomicU64; WINDOW]);

impl Budget {
    pub(super) fn new(percent: u32, min_per_second: u32) -> Self {
        Self {
            percent: percent.into(),
            min_per_second: min_per_second.into(),
            requests: RequestCounts(Numbers::new(WINDOW)),
            retries: RetryCounts(std::array::from_fn(|_| AtomicU64::new(0))),
        }
    }

    pub(super) fn count_request(&self, now: u64) {
        self.requests.add(second(now));
    }

    /// Whether one more retry is allowed; if so, it is counted.
    pub(super) fn try_retry(&self, now: u64) -> bool {
        let second = second(now);
        // Counted first: concurrent callers must not all take the last one.
        let this_second = self.retries.add(second);
        let allowed = this_second <= self.min_per_second
            || self.retries.sum(second) * 100 <= self.requests.sum(second) * self.percent;
        if !allowed {
            self.retries.subtract(second);
        }
        allowed
    }
}

/// Seconds begin with 1: a word that is 0 has none.
fn second(now: u64) -> u64 {
    now / 1_000 + 1
}

/// The sum of the counts that belong to the seconds up to this one.
fn sum(counts: impl Iterator<Item = u64>, second: u64) -> u64 {
    let oldest = second.saturating_sub(WINDOW as u64 - 1);
    counts.filter(|seen| (oldest..=second).contains(&(seen >> 32))).map(|seen| seen & u64::from(u32::MAX)).sum()
}

impl RequestCounts {
    fn add(&self, second: u64) {
        self.0
            .update(second as usize % WINDOW, |seen| if seen >> 32 == second { seen + 1 } else { (second << 32) + 1 });
    }

    fn sum(&self, second: u64) -> u64 {
        sum((0..WINDOW).flat_map(|slot| self.0.of_all(slot)), second)
    }
}

impl RetryCounts {
    /// Adds one, and returns the count of this second.
    fn add(&self, second: u64) -> u64 {
        let slot = &self.0[second as usize % WINDOW];
        let mut seen = slot.load(Ordering::Relaxed);
        loop {
            if seen >> 32 == second {
                return (slot.fetch_add(1, Ordering::Relaxed) + 1) & u64::from(u32::MAX);
            }
            match slot.compare_exchange_weak(seen, (second << 32) + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return 1,
                Err(now) => seen = now,
            }
        }
    }

    fn subtract(&self, second: u64) {
        let slot = &self.0[second as usize % WINDOW];
        // If that second is over, its count is gone.
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |seen| {
            (seen >> 32 == second && seen & u64::from(u32::MAX) > 0).then(|| seen - 1)
        });
    }

    fn sum(&self, second: u64) -> u64 {
        sum(self.0.iter().map(|slot| slot.load(Ordering::Relaxed)), second)
    }
}
