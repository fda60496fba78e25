//! The clock that decides, which never steps, and the wall clock, which names its seconds to clients.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// The clocks are read one after the other, and to the millisecond: if they seem to be no further apart than this, they are as
/// far apart as before.
const TOLERANCE_MS: i64 = 5;

/// When the clock that decides began, and Unix ms at that moment.
static BEGUN: OnceLock<(Instant, u64)> = OnceLock::new();

/// The beginning of the clock that decides, as another process of this machine understands it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockOrigin {
    /// On the machine's monotonic clock.
    monotonic_ns: u64,
    unix_ms: u64,
}

impl ClockOrigin {
    /// That of this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        let _ = Moment::now();
        let &(begun, unix_ms) = BEGUN.get_or_init(|| begin(Instant::now(), SystemTime::now()));
        let age = Instant::now().saturating_duration_since(begun);
        Self { monotonic_ns: monotonic_ns().saturating_sub(age.as_nanos() as u64), unix_ms }
    }

    /// Goes on with the clock of another process, if this one has not read its own yet. Returns whether it does.
    #[must_use]
    pub fn adopt(self) -> bool {
        let age = Duration::from_nanos(monotonic_ns().saturating_sub(self.monotonic_ns));
        let Some(begun) = Instant::now().checked_sub(age) else { return false };
        BEGUN.set((begun, self.unix_ms)).is_ok()
    }
}

/// The clock behind [`Instant`] on Linux.
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Unix ms as far as the clock that decides knows: a monotonic clock, which was right when this process began.
    pub(super) steady_ms: u64,
    /// How much further the wall clock is, in ms: what has been put right since.
    pub(super) wall_offset_ms: i64,
}

/// A moment on a clock that is both.
impl From<u64> for Moment {
    fn from(steady_ms: u64) -> Self {
        Self { steady_ms, wall_offset_ms: 0 }
    }
}

impl Moment {
    /// The present.
    #[must_use]
    pub fn now() -> Self {
        static OFFSET_MS: AtomicI64 = AtomicI64::new(0);
        // In this order: a request in the first moment of a second must not count to the second before.
        let (at, wall) = (Instant::now(), SystemTime::now());
        let wall_ms = unix_ms(wall);
        let (begun, begun_ms) = *BEGUN.get_or_init(|| begin(at, wall));
        let steady_ms = begun_ms + at.saturating_duration_since(begun).as_millis() as u64;
        let known_ms = OFFSET_MS.load(Ordering::Relaxed);
        let wall_offset_ms = offset(wall_ms, steady_ms, known_ms);
        if wall_offset_ms != known_ms {
            OFFSET_MS.store(wall_offset_ms, Ordering::Relaxed);
        }
        Self { steady_ms, wall_offset_ms }
    }

    /// Unix ms on the clock that decides.
    #[must_use]
    pub fn steady_ms(&self) -> u64 {
        self.steady_ms
    }
}

/// The beginning of a millisecond, so that both clocks change theirs at one time.
fn begin(at: Instant, wall: SystemTime) -> (Instant, u64) {
    let past = wall.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos() % 1_000_000;
    (at.checked_sub(Duration::from_nanos(past.into())).unwrap_or(at), unix_ms(wall))
}

fn offset(wall_ms: u64, steady_ms: u64, known_ms: i64) -> i64 {
    let offset_ms = wall_ms.wrapping_sub(steady_ms).cast_signed();
    if offset_ms.abs_diff(known_ms) > TOLERANCE_MS.unsigned_abs() { offset_ms } else { known_ms }
}

/// A clock before 1970 counts as 1970; 64 bits of milliseconds outlast it.
fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_is_an_offset_and_jitter_is_none() {
        assert_eq!([1_000, 1_003, 995].map(|wall_ms| offset(wall_ms, 1_000, 0)), [0; 3]);
        assert_eq!([61_000, 940].map(|wall_ms| offset(wall_ms, 1_000, 0)), [60_000, -60]);
        assert_eq!([1_062, 1_000].map(|wall_ms| offset(wall_ms, 1_000, 60)), [60, 0]);
    }

    #[test]
    fn both_clocks_change_their_millisecond_at_one_time() {
        let (at, wall) = (Instant::now(), UNIX_EPOCH + Duration::from_nanos(1_000_000_999_999));
        let (begun, unix_ms) = begin(at, wall);
        assert_eq!((at - begun, unix_ms), (Duration::from_nanos(999_999), 1_000_000));
    }

    #[test]
    fn the_clock_that_decides_never_goes_back() {
        let (first, second) = (Moment::now(), Moment::now());
        assert!(second.steady_ms >= first.steady_ms);
    }
}
