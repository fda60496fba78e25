//! What is watched for people whether or not anybody looks: traffic, warnings, and who listens to events.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};

use super::warning_log::WarningLog;
use crate::telemetry::{RouteMetrics, Traffic};

/// Listeners to events at one time.
const MAX_LISTENERS: usize = 32;
/// How long they may take at the end.
const LAST_EVENT_TIME: Duration = Duration::from_secs(1);

/// It outlives a configuration.
pub(crate) struct Observer {
    pub(super) traffic: Traffic,
    pub(super) warnings: WarningLog,
    /// The newest event for everybody who listens.
    pub(super) newest: watch::Sender<Bytes>,
    /// Changes when tokens that gave access may no longer do.
    pub(super) access_changes: watch::Sender<()>,
    pub(super) listeners: Arc<Semaphore>,
    /// The cells of requests for which no route was found.
    pub(super) no_route: Arc<RouteMetrics>,
}

impl Observer {
    /// Watches this traffic, with the requests for which no route was found.
    pub(crate) fn new(traffic: Traffic, no_route: Arc<RouteMetrics>) -> Self {
        Self {
            traffic,
            warnings: WarningLog::default(),
            newest: watch::Sender::default(),
            access_changes: watch::Sender::default(),
            listeners: Arc::new(Semaphore::new(MAX_LISTENERS)),
            no_route,
        }
    }

    /// Waits for a moment until all listeners have had their last event.
    pub(crate) async fn listeners_gone(&self) {
        let all = self.listeners.acquire_many(MAX_LISTENERS as u32);
        // A listener that takes nothing must not hold up the end.
        let _ = tokio::time::timeout(LAST_EVENT_TIME, all).await;
    }
}
