//! When each call that is left at the end of a drain is closed: one after the other, so that their clients don't all come back at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The time over which the closes of some calls are spread. Clones share the order of the calls.
#[derive(Debug, Clone)]
pub(super) struct CloseWindow {
    from: Instant,
    spread: Duration,
    /// The calls at its beginning.
    calls: u32,
    /// The calls that have got their moment.
    placed: Arc<AtomicU32>,
}

impl CloseWindow {
    pub(super) fn new(from: Instant, spread: Duration, calls: usize) -> Self {
        let calls = u32::try_from(calls).unwrap_or(u32::MAX).max(1);
        Self { from, spread, calls, placed: Arc::default() }
    }

    /// The moment of one more call: each has an equal share of the window to itself. Calls that were not there at its beginning
    /// get any moment in it.
    pub(super) fn next_moment(&self) -> Instant {
        let place = self.placed.fetch_add(1, Ordering::Relaxed);
        let share = match place < self.calls {
            true => (f64::from(place) + 0.5) / f64::from(self.calls),
            false => fastrand::f64(),
        };
        self.from + self.spread.mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closes_are_spread_evenly() {
        let now = Instant::now();
        let window = CloseWindow::new(now, Duration::from_secs(10), 1_000);
        let other = window.clone();
        for number in 0..1_000_u32 {
            let window = if number % 2 == 0 { &window } else { &other };
            let at = (window.next_moment() - now).as_micros();
            assert_eq!(at, u128::from(number) * 10_000 + 5_000);
        }
        for _ in 0..100 {
            assert!(window.next_moment() - now < Duration::from_secs(10), "a call that nobody has counted");
        }
    }

    #[test]
    fn without_a_spread_all_are_closed_at_once() {
        let now = Instant::now();
        let window = CloseWindow::new(now, Duration::ZERO, 0);
        assert!((0..3).all(|_| window.next_moment() == now));
    }
}
