//! Plans: named sets of limits.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// A named set of limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Its name.
    pub name: Arc<str>,
    /// Its limits, shortest window first, no two with the same window; empty means unlimited.
    pub limits: Box<[Limit]>,
    /// Calls that one token may have open at one time, over all instances; `None`: any number.
    pub concurrent_calls: Option<u32>,
    /// Requests that one token may have in flight at one time, on each instance; `None`: any number.
    pub in_flight: Option<u32>,
    /// Only a trial: requests that it denies are counted, logged, marked and forwarded.
    pub shadow: bool,
}

/// All plans of a configuration.
pub type PlansByName = BTreeMap<Arc<str>, Arc<Plan>>;

impl Plan {
    /// Its limits, followed by the route's own: all limits of a request there.
    pub fn limits_with<'a>(&'a self, own: Option<&'a RouteLimits>) -> impl Iterator<Item = &'a Limit> {
        self.limits.iter().chain(own.into_iter().flat_map(|own| &own.limits))
    }
}

/// Limits that a route has beside those of its tokens' plans. Each token has a log of its own for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteLimits {
    /// The route's name.
    pub route: Arc<str>,
    /// Its limits, at least one, shortest window first, no two with the same window.
    pub limits: Box<[Limit]>,
}

/// The most requests in a window.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Limit {
    /// Its name, for example `minute`.
    pub name: Arc<str>,
    /// Requests admitted in any window of that length; 0 admits nothing.
    pub count: u32,
    /// The length of the window in milliseconds, 1 s to 30 days.
    pub window_ms: NonZeroU32,
}

impl Limit {
    /// The length of the window.
    pub fn window(&self) -> Duration {
        Duration::from_millis(u64::from(self.window_ms.get()))
    }
}

/// The range of a limit's window in milliseconds: 1 second to 30 days.
pub(super) const WINDOW_MS: std::ops::RangeInclusive<u32> = 1_000..=2_592_000_000;

/// The range of a plan's limit of open calls.
pub const CONCURRENT_CALLS: std::ops::RangeInclusive<u32> = 1..=100_000;

/// The range of a plan's limit of requests in flight.
pub const IN_FLIGHT: std::ops::RangeInclusive<u32> = 1..=100_000;

/// The highest count of a limit.
pub(super) const MAX_COUNT: u32 = 1_000_000;
