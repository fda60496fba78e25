//! What one worker serves the connections of one listener with.

use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use crate::config::ListenSettings;
use crate::shutdown::Shutdown;
use crate::telemetry::ListenerMetrics;

use super::gate::Timeouts;
use super::head::HeadLimits;
use super::slot::ConnectionSlots;
use super::tls::Certificates;

/// A listener of one worker.
pub(crate) struct Listener<H> {
    /// What answers requests.
    pub handler: Arc<H>,
    /// Certificates and settings; `None`: a plain listener.
    pub tls: Option<Tls>,
    /// Bounds on what a client may do.
    pub settings: ListenSettings,
    /// The connections that clients may have.
    pub slots: Arc<ConnectionSlots>,
    /// The cells of this listener.
    pub metrics: ListenerMetrics,
    /// When to stop.
    pub shutdown: Shutdown,
}

/// TLS on a listener.
#[derive(Clone)]
pub(crate) struct Tls {
    /// Makes handshakes.
    pub acceptor: TlsAcceptor,
    /// Which certificate belongs to which name.
    pub certificates: Arc<Certificates>,
}

impl<H> Listener<H> {
    pub(super) fn head_limits(&self) -> HeadLimits {
        HeadLimits {
            bytes: self.settings.max_head_bytes,
            lines: self.settings.max_headers,
            // hyper, which must never be the one to refuse, takes no longer ones.
            target: self.settings.max_target_bytes.min(usize::from(u16::MAX) - 1),
        }
    }

    pub(super) fn timeouts(&self) -> Timeouts {
        Timeouts { head: self.settings.header_timeout, write: self.settings.body_idle_timeout }
    }
}
