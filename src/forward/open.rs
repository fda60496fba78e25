//! What connections of an endpoint have in common, and what each is: one of so many, so old, to this address.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::config::{Protocol, Upstream};

use super::connect::Place;
use super::line::WaitQueues;

/// What holds for all connections of an upstream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) protocol: Protocol,
    pub(super) connect_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) ping: Option<Duration>,
    pub(super) keep_alive: Duration,
    pub(super) max_idle: usize,
    max_connections: usize,
    max_lifetime: Option<Duration>,
}

/// How many connections an endpoint has, and who waits for one.
pub(super) struct Count {
    open: AtomicUsize,
    lines: Arc<WaitQueues>,
}

/// One connection among those that an endpoint may have; dropped, it is closed.
pub(super) struct Open {
    count: Arc<Count>,
    /// Which of a name's addresses it was made to.
    address: Option<IpAddr>,
    /// When it has reached `max_lifetime`.
    ends: Option<Instant>,
}

impl Settings {
    /// Those of an upstream, spoken to in this protocol.
    pub(super) fn of(upstream: &Upstream, protocol: Protocol) -> Self {
        Self {
            protocol,
            connect_timeout: upstream.connect_timeout,
            idle_timeout: upstream.idle_timeout,
            ping: upstream.ping,
            keep_alive: upstream.keep_alive,
            max_idle: upstream.max_idle,
            max_connections: upstream.max_connections,
            max_lifetime: upstream.max_lifetime,
        }
    }
}

impl Count {
    pub(super) fn new(lines: Arc<WaitQueues>) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(0), lines })
    }

    /// Whether there may be one more.
    pub(super) fn has_room(&self, settings: &Settings) -> bool {
        self.open.load(Ordering::SeqCst) < settings.max_connections
    }

    /// Tells who waits that one of the connections can take a request.
    pub(super) fn freed(&self) {
        self.lines.freed();
    }
}

impl Open {
    /// One more; `None` when there are as many as may be.
    pub(super) fn take(count: &Arc<Count>, settings: &Settings) -> Option<Self> {
        if count.open.fetch_add(1, Ordering::SeqCst) >= settings.max_connections {
            count.open.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        // Connections that were made together don't end together.
        let lifetime = settings.max_lifetime.map(|lifetime| lifetime.mul_f64(0.8 + 0.2 * fastrand::f64()));
        let ends = lifetime.and_then(|lifetime| Instant::now().checked_add(lifetime));
        Some(Self { count: count.clone(), address: None, ends })
    }

    /// Tells who waits that this connection can take a request.
    pub(super) fn freed(&self) {
        self.count.freed();
    }

    /// It leads to this address of the endpoint's name.
    pub(super) fn made_to(&mut self, address: IpAddr) {
        self.address = Some(address);
    }

    /// Which of a name's addresses it leads to.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Whether it may carry more requests: it is not too old, and the endpoint still is where it leads to.
    pub(super) fn is_current(&self, place: &Place, now: Instant) -> bool {
        self.ends.is_none_or(|ends| now < ends) && place.is_at(self.address)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.open.fetch_sub(1, Ordering::SeqCst);
        self.count.freed();
    }
}
