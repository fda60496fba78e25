//! Connection slots: how many connections clients may have, all together and each of them.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ipnet::IpNet;

use crate::config::Config;
use crate::gcra::network_of;
use crate::occupancy::{Occupancy, Occupied};
use crate::telemetry::ListenerMetrics;

/// All slots of a process, over all listeners and workers.
pub(crate) struct ConnectionSlots {
    open: AtomicUsize,
    max: usize,
    clients: Arc<Occupancy<IpAddr>>,
    max_per_client: u32,
    /// Each connection of these may be another client's.
    proxies: Vec<IpNet>,
}

/// One open connection. Dropped, it makes room for another.
pub(super) struct ConnectionSlot {
    all: Arc<ConnectionSlots>,
    gauge: prometheus::IntGauge,
    /// Its share of what its client may have, once that is known.
    client: Option<Occupied<IpAddr>>,
}

impl ConnectionSlots {
    /// As many as configured.
    #[must_use]
    pub(crate) fn new(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            max: config.listen.max_connections,
            clients: Arc::default(),
            max_per_client: config.listen.max_connections_per_client,
            proxies: config.trusted_proxies.clone(),
        })
    }

    pub(super) fn take(self: &Arc<Self>, metrics: &ListenerMetrics) -> Option<ConnectionSlot> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.max {
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
    pub(super) fn assign(&mut self, client: IpAddr) -> bool {
        let all = &self.all;
        let address = client.to_canonical();
        if all.proxies.iter().any(|network| network.contains(&address)) {
            return true;
        }
        // One host may have every address of an IPv6 network.
        self.client = all.clients.take(network_of(address, 32, 64), all.max_per_client);
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
