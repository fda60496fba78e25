//! One connection among those that an endpoint may have: counted, of limited age, and made to one of its addresses.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::resolve::EndpointAddr;
use super::wait_queue::WaitQueues;

/// How many connections all workers have to an endpoint, and the requests that wait for one.
pub(super) struct ConnectionCount {
    open: AtomicUsize,
    max: usize,
    /// Those among them that a call or a stream of events holds.
    calls: AtomicUsize,
    max_calls: usize,
    pub(super) queues: Arc<WaitQueues>,
}

/// One counted connection; dropped, it is closed.
pub(super) struct ConnectionSlot {
    pub(super) count: Arc<ConnectionCount>,
    /// The resolved address that it was made to.
    pub(super) address: Option<IpAddr>,
    /// When it has reached `max_lifetime`.
    expires: Option<Instant>,
    /// Whether it counts as held by a call.
    is_call: bool,
}

impl ConnectionCount {
    pub(super) fn new(max: usize, max_calls: usize, queues: Arc<WaitQueues>) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(0), max, calls: AtomicUsize::new(0), max_calls, queues })
    }

    pub(super) fn has_room(&self) -> bool {
        self.open.load(Ordering::SeqCst) < self.max
    }

    /// Whether one more call may hold a connection.
    pub(super) fn has_room_for_call(&self) -> bool {
        self.calls.load(Ordering::SeqCst) < self.max_calls
    }

    /// One more connection; `None` at the maximum.
    pub(super) fn take(self: &Arc<Self>, max_lifetime: Option<Duration>) -> Option<ConnectionSlot> {
        if !take_one(&self.open, self.max) {
            return None;
        }
        // Connections that were made together don't end together.
        let lifetime = max_lifetime.map(|lifetime| lifetime.mul_f64(0.8 + 0.2 * fastrand::f64()));
        let expires = lifetime.and_then(|lifetime| Instant::now().checked_add(lifetime));
        Some(ConnectionSlot { count: self.clone(), address: None, expires, is_call: false })
    }
}

/// Counts one more, unless there are `max`. Never above `max`, not even for a moment: another worker could be refused by that.
fn take_one(count: &AtomicUsize, max: usize) -> bool {
    let more = |count| (count < max).then_some(count + 1);
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
}

impl ConnectionSlot {
    /// Whether it may carry more requests: it is not too old, and the endpoint still has its address.
    pub(super) fn is_current(&self, addr: &EndpointAddr, now: Instant) -> bool {
        self.expires.is_none_or(|expires| now < expires) && addr.has(self.address)
    }

    /// A call gets the connection. Returns whether one more call may hold one.
    pub(super) fn try_begin_call(&mut self) -> bool {
        self.is_call = self.is_call || take_one(&self.count.calls, self.count.max_calls);
        self.is_call
    }

    /// The connection is free again.
    pub(super) fn end_call(&mut self) {
        if std::mem::take(&mut self.is_call) {
            self.count.calls.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.end_call();
        self.count.open.fetch_sub(1, Ordering::SeqCst);
        self.count.queues.on_freed();
    }
}
