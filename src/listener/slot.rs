//! Connection slots: how many connections clients may have, all together and each of them.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::Config;
use crate::gcra::network_of;
use crate::occupancy::{Occupancy, Occupied};
use crate::telemetry::ListenerMetrics;

/// All slots of a process, over all listeners and workers.
#[derive(Default)]
pub(crate) struct ConnectionSlots {
    open: AtomicUsize,
    clients: Arc<Occupancy<IpAddr>>,
}

/// One open connection. Dropped, it makes room for another.
pub(super) struct ConnectionSlot {
    all: Arc<ConnectionSlots>,
    gauge: prometheus::IntGauge,
    /// Its share of what its client may have, once that is known.
    client: Option<Occupied<IpAddr>>,
}

impl ConnectionSlots {
    /// A slot; `None` if `max` are taken.
    pub(super) fn take(self: &Arc<Self>, max: usize, metrics: &ListenerMetrics) -> Option<ConnectionSlot> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= max {
            self.open.fetch_sub(1, Ordering::Relaxed);
            metrics.refused.inc();
            return None;
        }
        metrics.open.inc();
        Some(ConnectionSlot { all: self.clone(), gauge: metrics.open.clone(), client: None })
    }
}

impl ConnectionSlot {
    /// Counts the connection for its client; false if that has as many as it may.
    pub(super) fn assign(&mut self, client: IpAddr, config: &Config) -> bool {
        let address = client.to_canonical();
        // Each connection of a proxy may be another client's.
        if config.trusted_proxies.iter().any(|network| network.contains(&address)) {
            return true;
        }
        // One host may have every address of an IPv6 network.
        let max = config.listen.max_connections_per_client;
        self.client = self.all.clients.take(network_of(address, 32, 64), max);
        self.client.is_some()
    }
}

impl std::fmt::Debug for ConnectionSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionSlot").finish_non_exhaustive()
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.all.open.fetch_sub(1, Ordering::Relaxed);
        self.gauge.dec();
    }
}
