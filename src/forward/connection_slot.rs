//! One connection among those that an endpoint may have: counted, of limited age, and made to one of its addresses.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::resolve::EndpointAddr;
use super::wait_queue::WaitQueues;

/// How many connections an endpoint has, and the requests that wait for one.
pub(super) struct ConnectionCount {
    open: AtomicUsize,
    max: usize,
    pub(super) queues: Arc<WaitQueues>,
}

/// One counted connection; dropped, it is closed.
pub(super) struct ConnectionSlot {
    pub(super) count: Arc<ConnectionCount>,
    /// The resolved address that it was made to.
    pub(super) address: Option<IpAddr>,
    /// When it has reached `max_lifetime`.
    expires: Option<Instant>,
}

impl ConnectionCount {
    pub(super) fn new(max: usize, queues: Arc<WaitQueues>) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(0), max, queues })
    }

    pub(super) fn has_room(&self) -> bool {
        self.open.load(Ordering::SeqCst) < self.max
    }

    /// One more connection; `None` at the maximum.
    pub(super) fn take(self: &Arc<Self>, max_lifetime: Option<Duration>) -> Option<ConnectionSlot> {
        if self.open.fetch_add(1, Ordering::SeqCst) >= self.max {
            self.open.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        // Connections that were made together don't end together.
        let lifetime = max_lifetime.map(|lifetime| lifetime.mul_f64(0.8 + 0.2 * fastrand::f64()));
        let expires = lifetime.and_then(|lifetime| Instant::now().checked_add(lifetime));
        Some(ConnectionSlot { count: self.clone(), address: None, expires })
    }
}

impl ConnectionSlot {
    /// Whether it may carry more requests: it is not too old, and the endpoint still has its address.
    pub(super) fn is_current(&self, addr: &EndpointAddr, now: Instant) -> bool {
        self.expires.is_none_or(|expires| now < expires) && addr.has(self.address)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.count.open.fetch_sub(1, Ordering::SeqCst);
        self.count.queues.on_freed();
    }
}
