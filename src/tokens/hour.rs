//! Hours since 1970, in which the use of tokens is counted.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the use of an hour is kept: thirty days.
pub(crate) const KEPT_HOURS: u32 = 30 * 24;

/// An hour of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Hour(pub(super) u32);

/// The use of a token in one hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HourUsage {
    pub(crate) hour: Hour,
    pub(crate) admitted: u64,
    pub(crate) refused: u64,
}

impl Hour {
    /// The hour of a moment.
    pub(crate) fn of(time: SystemTime) -> Self {
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self(u32::try_from(seconds / 3_600).unwrap_or(u32::MAX))
    }

    /// When it begins.
    pub(crate) fn begin(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(u64::from(self.0) * 3_600)
    }

    /// The first hour of its day.
    pub(crate) fn day(self) -> Self {
        Self(self.0 - self.0 % 24)
    }

    /// The oldest hour whose use is kept when this is the current one.
    pub(crate) fn oldest_kept(self) -> Self {
        Self((self.0 + 1).saturating_sub(KEPT_HOURS))
    }
}
