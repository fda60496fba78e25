//! The state of one endpoint, shared by all workers. All of it is atomic: requests read it without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::config::EndpointShare;

use super::rendezvous::hash;

/// Weights are multiplied by this, so that a slow start has steps.
const UNIT: u64 = 1_000;
/// The share of its weight that an endpoint gets when it returns to service: enough to show that it works.
const FIRST_SHARE: u64 = UNIT / 10;

pub(super) struct EndpointState {
    pub(super) label: Arc<str>,
    pub(super) part: EndpointShare,
    /// The hash of its name: the same in every process.
    pub(super) seed: u64,
    /// Whether there are health checks, without which nobody would find out that it is well again.
    is_checked: bool,
    pub(super) live: Arc<LiveState>,
}

/// What changes: it outlives a change of the endpoint's weight.
#[derive(Default)]
pub(super) struct LiveState {
    in_flight: AtomicUsize,
    /// Failed requests since the last success.
    pub(super) failures: AtomicU32,
    /// 0: it never was.
    pub(super) ejected_until: AtomicU64,
    /// By its health checks.
    down: AtomicBool,
    /// When its health checks passed again; 0: they never failed.
    up_since: AtomicU64,
}

/// A request in flight to an endpoint; dropped, it is over.
pub(crate) struct InFlight(Arc<LiveState>);

impl EndpointState {
    pub(super) fn new(label: Arc<str>, part: EndpointShare, is_checked: bool, live: Arc<LiveState>) -> Self {
        Self { seed: hash(label.as_bytes()), label, part, is_checked, live }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.live.in_flight.load(Ordering::Relaxed)
    }

    /// Whether requests should go to it at `now` (milliseconds).
    pub(super) fn is_available(&self, now: u64) -> bool {
        !self.is_down() && !self.is_ejected(now)
    }

    pub(super) fn is_down(&self) -> bool {
        self.is_checked && self.live.down.load(Ordering::Relaxed)
    }

    pub(super) fn is_ejected(&self, now: u64) -> bool {
        now < self.ejected_until()
    }

    pub(super) fn ejected_until(&self) -> u64 {
        self.live.ejected_until.load(Ordering::Relaxed)
    }

    pub(super) fn set_down(&self, down: bool, now: u64) {
        if !down {
            self.live.up_since.store(now, Ordering::Relaxed);
        }
        self.live.down.store(down, Ordering::Relaxed);
    }

    /// Its weight at `now`, in thousandths: it grows evenly during a slow start.
    pub(super) fn weight(&self, slow_start: Option<Duration>, now: u64) -> u64 {
        let whole = u64::from(self.part.weight) * UNIT;
        let Some(slow_start) = slow_start else { return whole };
        let since = self.ejected_until().max(self.live.up_since.load(Ordering::Relaxed));
        if since == 0 {
            return whole;
        }
        let (elapsed, length) = (now.saturating_sub(since), slow_start.as_millis() as u64);
        let share = (elapsed * UNIT).checked_div(length).map_or(UNIT, |share| share.clamp(FIRST_SHARE, UNIT));
        whole * share / UNIT
    }
}

impl InFlight {
    pub(super) fn begin(endpoint: &Arc<EndpointState>) -> Self {
        endpoint.live.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(endpoint.live.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
