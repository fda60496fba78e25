//! A connection's slot under `listen.max_connections`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::telemetry::ListenerMetrics;

/// One open connection. Dropped, it makes room for another.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    open: Arc<AtomicUsize>,
    gauge: prometheus::IntGauge,
}

impl ConnectionSlot {
    pub(super) fn take(open: &Arc<AtomicUsize>, max: usize, metrics: &ListenerMetrics) -> Option<Self> {
        if open.fetch_add(1, Ordering::Relaxed) >= max {
            open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        metrics.open.inc();
        Some(Self { open: open.clone(), gauge: metrics.open.clone() })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.gauge.dec();
    }
}
