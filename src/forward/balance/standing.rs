//! How one endpoint stands, as all workers see it. What a request looks at is atomic; nothing here waits for a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::config::EndpointShare;

use super::hash::hash;

/// Weights are multiplied by this, so that a slow start has steps.
const UNIT: u64 = 1_000;
/// What an endpoint that has just come back gets of its weight: enough to be seen to work.
const FIRST_SHARE: u64 = UNIT / 10;

/// One endpoint of an upstream.
pub(super) struct Standing {
    pub(super) label: Arc<str>,
    pub(super) part: EndpointShare,
    /// What its name hashes to: its place among the others is the same in every process.
    pub(super) seed: u64,
    in_flight: AtomicUsize,
    /// Failed requests since the last good one.
    pub(super) failures: AtomicU32,
    /// It is left out until then; 0: it never was.
    ejected_until: AtomicU64,
    /// It has failed its health checks.
    down: AtomicBool,
    /// When its health checks let it in again; 0: it was always there.
    up_since: AtomicU64,
}

/// A request under way to an endpoint; dropped, it is over.
pub(crate) struct InFlight(Arc<Standing>);

impl Standing {
    pub(super) fn new(label: Arc<str>, part: EndpointShare) -> Self {
        Self {
            seed: hash(label.as_bytes()),
            label,
            part,
            in_flight: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            down: AtomicBool::new(false),
            up_since: AtomicU64::new(0),
        }
    }

    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether requests should go there at `now` (milliseconds).
    pub(super) fn is_available(&self, now: u64) -> bool {
        !self.is_down() && !self.is_ejected(now)
    }

    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    pub(super) fn is_ejected(&self, now: u64) -> bool {
        now < self.ejected_until()
    }

    pub(super) fn ejected_until(&self) -> u64 {
        self.ejected_until.load(Ordering::Relaxed)
    }

    pub(super) fn eject(&self, until: u64) {
        self.ejected_until.store(until, Ordering::Relaxed);
    }

    /// What the health checks say.
    pub(super) fn set_down(&self, down: bool, now: u64) {
        if !down {
            self.up_since.store(now, Ordering::Relaxed);
        }
        self.down.store(down, Ordering::Relaxed);
    }

    /// Its weight at `now`, in thousandths: it grows evenly while it comes back.
    pub(super) fn weight(&self, slow_start: Option<Duration>, now: u64) -> u64 {
        let whole = u64::from(self.part.weight) * UNIT;
        let Some(slow_start) = slow_start else { return whole };
        let since = self.ejected_until().max(self.up_since.load(Ordering::Relaxed));
        if since == 0 {
            return whole;
        }
        let (been, length) = (now.saturating_sub(since), slow_start.as_millis() as u64);
        let share = (been * UNIT).checked_div(length).map_or(UNIT, |share| share.clamp(FIRST_SHARE, UNIT));
        whole * share / UNIT
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
