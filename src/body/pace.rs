//! How slowly a client may send a body: a smallest rate, and a bound for the whole of it.

use std::time::{Duration, Instant};

use crate::config::UploadBounds;

/// How long a client may let its receiver wait before the rate counts: a phone loses its network for a while.
const GRACE_MS: u64 = 30_000;

/// The pace of one body. Only the time counts for the rate in which its receiver waits for more. Times are in milliseconds since
/// `began`, and small: every body that passes has room for this.
pub(super) struct Pace {
    /// Bytes a second; 0: no bound.
    min_rate: u32,
    /// For the whole body; 0: no bound.
    timeout_ms: u32,
    /// When its receiver waited first.
    began: Option<Instant>,
    /// Since when its receiver waits.
    waiting_ms: Option<u32>,
    /// How long it has waited before.
    waited_ms: u32,
}

impl Pace {
    pub(super) fn new(bounds: UploadBounds) -> Self {
        Self {
            min_rate: bounds.min_rate.map_or(0, |rate| u32::try_from(rate.get()).unwrap_or(u32::MAX)),
            timeout_ms: bounds.timeout.map_or(0, millis),
            began: None,
            waiting_ms: None,
            waited_ms: 0,
        }
    }

    /// How long the wait that begins now may last, if `seen` bytes have come; `None`: no bound.
    pub(super) fn patience(&mut self, seen: u64, now: Instant) -> Option<Duration> {
        let now_ms = millis(now.duration_since(*self.began.get_or_insert(now)));
        let since_ms = *self.waiting_ms.get_or_insert(now_ms);
        let by_rate = (self.min_rate > 0).then(|| {
            let earned_ms = seen.saturating_mul(1_000) / u64::from(self.min_rate);
            (GRACE_MS + earned_ms).saturating_sub(self.waited_ms.into())
        });
        let by_time = (self.timeout_ms > 0).then(|| u64::from(self.timeout_ms.saturating_sub(since_ms)));
        by_rate.into_iter().chain(by_time).min().map(Duration::from_millis)
    }

    /// What the receiver waited for has come.
    pub(super) fn arrived(&mut self, now: Instant) {
        if let (Some(since_ms), Some(began)) = (self.waiting_ms.take(), self.began) {
            let waited_ms = millis(now.duration_since(began)).saturating_sub(since_ms);
            self.waited_ms = self.waited_ms.saturating_add(waited_ms);
        }
    }

    /// Whether the receiver waits.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting_ms.is_some()
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace(rate: u64, timeout: Option<u64>) -> Pace {
        Pace::new(UploadBounds { min_rate: NonZeroU64::new(rate), timeout: timeout.map(Duration::from_secs) })
    }

    #[test]
    fn every_byte_earns_time_beyond_the_grace() {
        let (mut pace, now) = (pace(500, None), Instant::now());
        assert_eq!(pace.patience(0, now), Some(30 * SECOND));
        pace.arrived(now + 25 * SECOND);
        assert_eq!(pace.patience(5_000, now + 26 * SECOND), Some(15 * SECOND));
        pace.arrived(now + 36 * SECOND);
        assert_eq!(pace.patience(2_500, now + 40 * SECOND), Some(Duration::ZERO));
    }

    #[test]
    fn only_waiting_counts_for_the_rate_but_all_time_for_the_whole() {
        let now = Instant::now();
        let mut slow_receiver = pace(500, None);
        slow_receiver.patience(0, now);
        slow_receiver.arrived(now);
        assert_eq!(slow_receiver.patience(0, now + 100 * SECOND), Some(30 * SECOND));
        let mut whole = pace(500, Some(110));
        whole.patience(1 << 20, now);
        whole.arrived(now);
        assert_eq!(whole.patience(1 << 20, now + 100 * SECOND), Some(10 * SECOND));
        assert_eq!(pace(0, None).patience(0, now), None);
    }
}
