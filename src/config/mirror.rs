//! The upstream that gets copies of a share of a route's requests.

use std::time::Duration;

/// All requests, in the unit of [`Mirror::share`].
pub const FULL_SHARE: u32 = 1_000_000;

/// An upstream that gets copies of a share of a route's requests; the answers are dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// An index in [`Config::upstreams`](super::Config::upstreams); none of the route's own upstreams.
    pub upstream: usize,
    /// How many of a million requests are copied.
    pub share: u32,
    /// Bytes of a request's body; longer ones are not copied.
    pub max_body: usize,
    /// Copies kept or in flight at one time, over all workers.
    pub max_copies: usize,
    /// The longest time from sending a copy to the end of its answer.
    pub timeout: Duration,
}
