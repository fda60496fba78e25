//! How slowly a client may send a body: a smallest rate, and a bound for the whole of it.

use std::time::{Duration, Instant};

use crate::config::UploadBounds;

/// How long a client may let its receiver wait before the rate counts: a phone loses its network for a while.
const GRACE: Duration = Duration::from_secs(30);

/// The pace of one body. Only the time counts for the rate in which its receiver waits for more.
pub(super) struct Pace {
    bounds: UploadBounds,
    /// When its receiver waited first.
    began: Option<Instant>,
    /// Since when its receiver waits.
    waiting: Option<Instant>,
    /// How long it has waited before.
    waited: Duration,
}

impl Pace {
    pub(super) fn new(bounds: UploadBounds) -> Self {
        Self { bounds, began: None, waiting: None, waited: Duration::ZERO }
    }

    /// How long the wait that begins now may last, if `seen` bytes have come; `None`: no bound.
    pub(super) fn patience(&mut self, seen: u64, now: Instant) -> Option<Duration> {
        let since = *self.waiting.get_or_insert(now);
        let elapsed = since.duration_since(*self.began.get_or_insert(now));
        let by_rate = self.bounds.min_rate.map(|rate| {
            // A body is at most a tebibyte long: no sum overflows.
            let earned = Duration::from_millis(seen.saturating_mul(1_000) / rate);
            (GRACE + earned).saturating_sub(self.waited)
        });
        let by_time = self.bounds.timeout.map(|timeout| timeout.saturating_sub(elapsed));
        by_rate.into_iter().chain(by_time).min()
    }

    /// What the receiver waited for has come.
    pub(super) fn arrived(&mut self) {
        if let Some(since) = self.waiting.take() {
            self.waited += since.elapsed();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    fn pace(rate: u64, timeout: Option<u64>) -> Pace {
        Pace::new(UploadBounds { min_rate: NonZeroU64::new(rate), timeout: timeout.map(Duration::from_secs) })
    }

    #[test]
    fn every_byte_earns_time_beyond_the_grace() {
        let (mut pace, now) = (pace(500, None), Instant::now());
        assert_eq!(pace.patience(0, now), Some(GRACE));
        assert_eq!(pace.patience(5_000, now), Some(GRACE + Duration::from_secs(10)));
        pace.waited = Duration::from_secs(35);
        assert_eq!(pace.patience(5_000, now), Some(Duration::from_secs(5)));
        assert_eq!(pace.patience(35, now), Some(Duration::ZERO));
    }

    #[test]
    fn only_waiting_counts_for_the_rate_but_all_time_for_the_whole() {
        let now = Instant::now();
        let later = now + Duration::from_secs(100);
        let mut slow_receiver = pace(500, None);
        slow_receiver.patience(0, now);
        slow_receiver.arrived();
        assert!(slow_receiver.patience(0, later).is_some_and(|left| left > GRACE - Duration::from_secs(1)));
        let mut whole = pace(500, Some(110));
        whole.patience(1 << 20, now);
        whole.arrived();
        assert_eq!(whole.patience(1 << 20, later), Some(Duration::from_secs(10)));
        let mut unbounded = pace(0, None);
        assert_eq!(unbounded.patience(0, now), None);
    }
}
