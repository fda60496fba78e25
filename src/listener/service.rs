//! What one worker serves the connections of one listener with.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::{Config, ListenSettings};
use crate::shutdown::Shutdown;
use crate::telemetry::ListenerMetrics;

use super::head::HeadLimits;
use super::slot::ConnectionSlots;
use super::tls::Tls;

/// A listener of one worker.
pub(crate) struct Listener<H> {
    /// What it serves with at present. A connection that has begun, and a request, go on with what they began with.
    pub serving: ArcSwap<Serving<H>>,
    /// The connections that clients may have.
    pub slots: Arc<ConnectionSlots>,
    /// The cells of this listener.
    pub metrics: ListenerMetrics,
    /// When to stop.
    pub shutdown: Shutdown,
}

/// What a listener serves with, by one configuration.
pub(crate) struct Serving<H> {
    /// What answers requests.
    pub handler: Arc<H>,
    /// Certificates and settings; `None`: a plain listener.
    pub tls: Option<Tls>,
    /// The configuration, with the bounds on what a client may do.
    pub config: Arc<Config>,
}

impl<H> Listener<H> {
    /// What answers a request that begins now.
    pub(super) fn handler(&self) -> Arc<H> {
        self.serving.load().handler.clone()
    }
}

impl HeadLimits {
    pub(super) fn of(settings: &ListenSettings) -> Self {
        Self {
            bytes: settings.max_head_bytes,
            lines: settings.max_headers,
            // `http` has no longer ones.
            target: settings.max_target_bytes.min(usize::from(u16::MAX) - 1),
        }
    }
}
