//! What the admin listener shows and changes: this process, and the stores of tokens and limits.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio_rustls::TlsAcceptor;

use super::limit_service::LimitService;
use super::observer::Observer;
use super::reload::{LastReload, ReloadRequests};
use crate::auth::FileStore;
use crate::config::{Config, Route};
use crate::forward::Upstreams;
use crate::instances::Instances;
use crate::listener::Certificates;
use crate::shutdown::Shutdown;
use crate::store::StoreHealth;
use crate::telemetry::{LogControl, Metrics, RouteMetrics, UpDownCounter};
use crate::tokens::{Registry, UsageCounts};

/// What requests to the admin listener read and change.
pub(crate) struct AdminBackend {
    /// The configuration of this process.
    pub(crate) config: Arc<Config>,
    /// Its metrics.
    pub(crate) metrics: Arc<Metrics>,
    /// Its end; readiness depends on it.
    pub(crate) shutdown: Shutdown,
    /// The token records.
    pub(crate) registry: Arc<Registry>,
    /// How tokens are used, as far as it is not saved yet.
    pub(crate) usage: Arc<UsageCounts>,
    /// The limits.
    pub(crate) limits: LimitService,
    /// With the memory store, the token file as this process has read it.
    pub(crate) file: Option<Arc<FileStore>>,
    /// The upstreams and their health.
    pub(crate) upstreams: Arc<Upstreams>,
    /// Each route and what is counted on it.
    pub(crate) routes: Vec<(Arc<Route>, Arc<RouteMetrics>)>,
    /// The certificates of the HTTPS listener, and of the admin listener if it has one.
    pub(crate) certificates: Vec<Arc<Certificates>>,
    /// TLS of the admin listener.
    pub(crate) tls: Option<TlsAcceptor>,
    /// The open connections of the HTTPS listener, and of the plain one.
    pub(crate) connections: [UpDownCounter; 2],
    /// What is watched for people.
    pub(crate) observer: Arc<Observer>,
    /// Where this process can be taken over.
    pub(crate) takeover: Option<PathBuf>,
    /// With Redis, its health; readiness depends on it.
    pub(crate) store: Option<Arc<StoreHealth>>,
    /// Asks for the configuration to be read again.
    pub(crate) reload: ReloadRequests,
    /// What came of the last time.
    pub(crate) last_reload: LastReload,
    /// This instance and the others.
    pub(crate) instances: Arc<Instances>,
    /// When this configuration came into force.
    pub(crate) in_force_since: SystemTime,
    /// What is logged.
    pub(crate) log: LogControl,
}

impl AdminBackend {
    /// Reads a changed token file again at once, so that the change is in force before it is answered. Redis needs no such call.
    pub(super) async fn refresh(&self) {
        if let Some(file) = self.file.clone() {
            // The file is read again in a moment anyway, and errors are logged there.
            let _ = tokio::task::spawn_blocking(move || file.refresh()).await;
        }
    }
}
