//! How far Redis's clock is from this process's.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use prometheus::IntGauge;

use super::super::clock::Moment;
use super::super::decision::Decision;

/// Both clocks are read to the millisecond.
const ROUNDING_MS: i64 = 2;
/// A skew of more than this (ms) is reported.
const MAX_UNREPORTED_MS: u64 = 1_000;

/// How far Redis's clock is from this process's, as its answers tell; one for all workers of a process.
#[derive(Default)]
pub struct ClockSkew {
    /// Milliseconds to be added to Redis's clock. Read by every request, and written when an answer contradicts it.
    ahead_ms: AtomicI64,
    is_reported: AtomicBool,
    gauge: Option<IntGauge>,
}

impl ClockSkew {
    /// None yet; `gauge` shows it in whole seconds, positive if Redis's clock is ahead of the wall clock here.
    #[must_use]
    pub fn new(gauge: IntGauge) -> Self {
        Self { gauge: Some(gauge), ..Self::default() }
    }

    /// Moves a decision of Redis to this process's clock: it was made between these two readings of it. What is known of the
    /// skew changes by no more than it must, so that times don't waver by the milliseconds that an answer takes.
    pub(super) fn translate(&self, decision: &mut Decision, asked_ms: u64, answered_ms: u64) {
        // A plan without limits is decided without a clock.
        if decision.windows().is_empty() {
            return;
        }
        let redis_ms = decision.clock_ms();
        let behind = |here_ms: u64| here_ms.wrapping_sub(redis_ms).cast_signed();
        let (least, most) = (behind(asked_ms) - ROUNDING_MS, behind(answered_ms.max(asked_ms)) + ROUNDING_MS);
        let known = self.ahead_ms.load(Ordering::Relaxed);
        let ahead_ms = known.clamp(least, most);
        if ahead_ms != known {
            self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
        }
        decision.shift(ahead_ms);
    }

    /// Shows the skew against the wall clock, and warns of it once when it is large.
    pub(super) fn report(&self, now: Moment) {
        let skew_ms = -(self.ahead_ms.load(Ordering::Relaxed) + now.wall_offset_ms);
        if let Some(gauge) = &self.gauge {
            gauge.set((skew_ms + skew_ms.signum() * 500) / 1_000);
        }
        let is_large = skew_ms.unsigned_abs() > MAX_UNREPORTED_MS;
        if is_large && !self.is_reported.swap(true, Ordering::Relaxed) {
            let (seconds, side) =
                (skew_ms.unsigned_abs() as f64 / 1_000.0, if skew_ms > 0 { "ahead of" } else { "behind" });
            tracing::warn!(
                skew_ms,
                "Redis's clock is {seconds:.1} s {side} this machine's; limits are decided by Redis's, and clients are \
                 told times on this machine's (synchronise both with NTP)"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::decision::{Source, WindowStatus};
    use super::*;

    /// What is told of a decision that Redis made at `redis_ms`, and that was asked and answered then here.
    fn told(skew: &ClockSkew, redis_ms: u64, asked_ms: u64, answered_ms: u64) -> (u64, u64) {
        let window = WindowStatus { used: 1, limit: 1, window_ms: 5_000, frees_ms: redis_ms + 5_000 };
        let mut decision = Decision::new(false, Source::Redis, 1, redis_ms, [window]);
        skew.translate(&mut decision, asked_ms, answered_ms);
        (decision.clock_ms(), decision.windows()[0].frees_ms)
    }

    #[test]
    fn times_are_reported_on_the_local_clock_and_stay_steady() {
        let skew = ClockSkew::default();
        // The clocks agree, as far as one can tell.
        assert_eq!(told(&skew, 100_000, 99_998, 100_007), (100_000, 105_000));
        assert_eq!(told(&skew, 100_000, 100_002, 100_003), (100_000, 105_000));
        // Redis's clock is 3 s behind; the second answer took longer.
        assert_eq!(told(&skew, 97_000, 100_000, 100_001), (99_998, 104_998));
        assert_eq!(told(&skew, 98_000, 100_990, 101_050), (100_998, 105_998));
        // It is put right.
        assert_eq!(told(&skew, 102_000, 102_000, 102_001), (102_003, 107_003));
    }

    #[test]
    fn a_large_skew_is_shown_and_reported_once() {
        let gauge = IntGauge::new("skew", "test").unwrap();
        let skew = ClockSkew::new(gauge.clone());
        told(&skew, 100_000, 100_700, 100_701);
        skew.report(0.into());
        assert_eq!((gauge.get(), skew.is_reported.load(Ordering::Relaxed)), (-1, false));
        skew.report(Moment { steady_ms: 0, wall_offset_ms: -3_000 });
        assert_eq!((gauge.get(), skew.is_reported.load(Ordering::Relaxed)), (2, true));
    }
}
