//! How much may be tried again: so much of what is asked, or so many in a second, whichever is more. When everything fails, all
//! that is tried again is load on who can't bear it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Seconds that requests and retries are compared over.
const WINDOW: usize = 10;

/// The requests and retries of an upstream's last seconds.
pub(super) struct Budget {
    percent: u64,
    min_per_second: u64,
    requests: Counts,
    retries: Counts,
}

/// Counts of the last seconds, each in a word with the second that it is of.
struct Counts([AtomicU64; WINDOW]);

impl Budget {
    pub(super) fn new(percent: u32, min_per_second: u32) -> Self {
        let counts = || Counts(std::array::from_fn(|_| AtomicU64::new(0)));
        Self { percent: percent.into(), min_per_second: min_per_second.into(), requests: counts(), retries: counts() }
    }

    /// A request came.
    pub(super) fn asked(&self, now: u64) {
        self.requests.add(second(now));
    }

    /// Whether one more may be tried again; if so, it counts.
    pub(super) fn spend(&self, now: u64) -> bool {
        let second = second(now);
        // Counted first, so that those who ask at the same time don't all find room for one.
        let this_second = self.retries.add(second);
        let allowed = this_second <= self.min_per_second
            || self.retries.sum(second) * 100 <= self.requests.sum(second) * self.percent;
        if !allowed {
            self.retries.take_back(second);
        }
        allowed
    }
}

/// Seconds begin with 1: a word that is 0 is of none.
fn second(now: u64) -> u64 {
    now / 1_000 + 1
}

impl Counts {
    /// Adds one, and tells how many this second then has.
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

    fn take_back(&self, second: u64) {
        let slot = &self.0[second as usize % WINDOW];
        // One of a second that is over by now is forgotten with it.
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |seen| {
            (seen >> 32 == second && seen & u64::from(u32::MAX) > 0).then(|| seen - 1)
        });
    }

    fn sum(&self, second: u64) -> u64 {
        let oldest = second.saturating_sub(WINDOW as u64 - 1);
        let counts = self.0.iter().map(|slot| slot.load(Ordering::Relaxed));
        counts.filter(|seen| (oldest..=second).contains(&(seen >> 32))).map(|seen| seen & u64::from(u32::MAX)).sum()
    }
}
