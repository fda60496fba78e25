//! What instances see of each other.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// One instance, as the others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InstanceReport {
    /// Random, from its start to its end.
    pub(crate) id: String,
    pub(crate) host: String,
    pub(crate) pid: u32,
    pub(crate) version: String,
    pub(crate) started_at: String,
    /// When it was last known to be alive, as RFC 3339.
    #[serde(default)]
    pub(crate) seen_at: String,
    pub(crate) draining: bool,
    /// Its open calls.
    pub(crate) calls: usize,
}

/// A moment as RFC 3339.
pub(super) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// A moment as Redis writes it.
pub(super) fn from_unix_ms(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(ms.min(u64::MAX >> 12))
}
