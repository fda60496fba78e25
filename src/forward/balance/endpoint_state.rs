//! The state of one endpoint, shared by all workers. Requests read it without a lock, and write only what each worker counts for itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::config::EndpointShare;
use crate::per_worker::Numbers;

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
pub(super) struct LiveState {
    in_flight: Numbers,
    /// Failed requests since the last success.
    pub(super) failures: AtomicU32,
    /// 0: it never was.
    pub(super) ejected_until: AtomicU64,
    /// By its health checks.
    down: AtomicBool,
    /// When its health checks passed again; 0: they never failed.
    up_since: AtomicU64,
}

/// An endpoint's requests in flight, as one worker counts them.
pub(crate) struct EndpointLoad(Arc<LoadHandle>);

/// A request in flight to an endpoint; dropped, it is over.
pub(crate) struct InFlight(Arc<LoadHandle>);

/// Each worker has its own, so that requests change no counter of references that others change.
struct LoadHandle(Arc<LiveState>);

impl Default for LiveState {
    fn default() -> Self {
        Self {
            in_flight: Numbers::new(1),
            failures: AtomicU32::default(),
            ejected_until: AtomicU64::default(),
            down: AtomicBool::default(),
            up_since: AtomicU64::default(),
        }
    }
}

impl EndpointState {
    pub(super) fn new(label: Arc<str>, part: EndpointShare, is_checked: bool, live: Arc<LiveState>) -> Self {
        Self { seed: hash(label.as_bytes()), label, part, is_checked, live }
    }

    /// For one worker.
    pub(super) fn load(&self) -> EndpointLoad {
        EndpointLoad(Arc::new(LoadHandle(self.live.clone())))
    }

    /// Of all workers.
    pub(super) fn in_flight(&self) -> usize {
        // A request may end on another worker than it began on, between two of the numbers that are summed.
        usize::try_from(self.live.in_flight.sum(0).cast_signed()).unwrap_or(0)
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

impl EndpointLoad {
    /// A request goes to this endpoint.
    pub(crate) fn begin(&self) -> InFlight {
        self.0.0.in_flight.add(0, 1);
        InFlight(self.0.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.in_flight.add(0, 1_u64.wrapping_neg());
    }
}
