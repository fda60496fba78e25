//! Connection slots: how many connections clients may have, all together and each of them.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::Config;
use crate::gcra::network_of;
use crate::occupancy::{Occupancy, Occupied};
use crate::telemetry::{ListenerMetrics, UpDownCounter};

/// All slots of a process, over all listeners and workers.
#[derive(Default)]
pub(crate) struct ConnectionSlots {
    open: AtomicUsize,
    /// As many as were allowed when all of them were taken; 0: room was made since.
    full_at: AtomicUsize,
    clients: Arc<Occupancy<IpAddr>>,
}

/// One open connection. Dropped, it makes room for another.
pub(super) struct ConnectionSlot {
    all: Arc<ConnectionSlots>,
    gauge: UpDownCounter,
    /// Its share of what its client may have, once that is known.
    client: Option<Occupied<IpAddr>>,
}

impl ConnectionSlots {
    /// A slot; `None` if `max` are taken.
    pub(super) fn take(self: &Arc<Self>, max: usize, metrics: &ListenerMetrics) -> Option<ConnectionSlot> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= max {
            self.open.fetch_sub(1, Ordering::Relaxed);
            metrics.refused.inc();
            if self.full_at.swap(max, Ordering::Relaxed) == 0 {
                tracing::warn!(
                    max,
                    "listen.max_connections is reached: further connections are closed at once until some end"
                );
            }
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
        let open = self.all.open.fetch_sub(1, Ordering::Relaxed) - 1;
        self.gauge.dec();
        // A tenth must be free, or a full instance would tell of each connection that comes and goes.
        let full_at = self.all.full_at.load(Ordering::Relaxed);
        if full_at > 0 && open <= full_at - full_at.div_ceil(10) && self.all.full_at.swap(0, Ordering::Relaxed) > 0 {
            tracing::info!(open, "connections are accepted again");
        }
    }
}
