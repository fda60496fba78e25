//! All that one configuration means, for all workers: built whole or not at all, and exchanged whole. A request is served by one
//! snapshot from its first step to its last.

use std::sync::Arc;

use http::Method;
use tokio_rustls::TlsAcceptor;

use crate::auth::Failures;
use crate::config::{self, Config};
use crate::forward::Upstreams;
use crate::listener::{Certificates, Tickets, Tls, TlsError, server_config};
use crate::route::{RouteError, RouteTable};
use crate::telemetry::{CertificateMetrics, Metrics, RouteMetrics};
use crate::tokens::Plans;

/// All that one configuration means.
pub(crate) struct Snapshot {
    /// The configuration itself.
    pub config: Arc<Config>,
    /// Its plans; of the last configuration, if they are the same.
    pub plans: Arc<Plans>,
    /// Its upstreams, with what outlives a change of the configuration.
    pub upstreams: Arc<Upstreams>,
    /// TLS of the HTTPS listener.
    pub tls: Tls,
    /// TLS of the admin listener; `None`: it serves in clear.
    pub admin_tls: Option<Tls>,
    /// Failed authentications; of the last configuration, if their bounds are the same.
    pub failures: Arc<Failures>,
    pub(super) table: RouteTable,
    /// In the order of the configuration.
    routes: Vec<ServedRoute>,
    _certificates: Vec<CertificateMetrics>,
}

/// A route and what is counted on it. A request keeps it to its end.
#[derive(Clone)]
pub(crate) struct ServedRoute {
    pub(super) name: Arc<str>,
    pub(super) route: Arc<config::Route>,
    pub(super) metrics: Arc<RouteMetrics>,
}

/// Why a configuration can't be put into force.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// The certificates of the HTTPS listener.
    #[error("tls.certificates: {0}")]
    Tls(#[source] TlsError),
    /// The certificate of the admin listener.
    #[error("admin.tls: {0}")]
    AdminTls(#[source] TlsError),
    /// Two routes that can't be told apart, for example.
    #[error(transparent)]
    Routes(#[from] RouteError),
    /// TLS towards an upstream.
    #[error("upstreams: {0}")]
    Upstream(#[source] TlsError),
}

impl Snapshot {
    /// Reads the files that the configuration names. `before` is what it replaces. Must be called on the runtime of the background
    /// tasks.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing has changed then.
    pub(crate) fn new(
        config: Config,
        metrics: &Metrics,
        tickets: &Tickets,
        before: Option<&Self>,
    ) -> Result<Self, SnapshotError> {
        let table = RouteTable::new(&config.routes)?;
        let certificates = Arc::new(Certificates::load(&config.tls.certificates).map_err(SnapshotError::Tls)?);
        let settings = server_config(&config.tls, certificates.clone(), tickets.clone()).map_err(SnapshotError::Tls)?;
        let admin_tls = config.admin.tls.as_ref().map(Tls::of_admin).transpose().map_err(SnapshotError::AdminTls)?;
        let upstreams = Upstreams::new(&config, metrics, before.map(|before| &*before.upstreams));
        let upstreams = upstreams.map_err(SnapshotError::Upstream)?;
        let of_admin = admin_tls.iter().flat_map(|tls| tls.certificates.expiries());
        let expiries = certificates.expiries().iter().chain(of_admin).map(|(file, expiry)| {
            let metrics = metrics.certificate(&file.display().to_string());
            metrics.expiry.set(*expiry);
            metrics
        });
        let routes = config.routes.iter().map(|route| {
            let known = before.and_then(|before| before.routes.iter().find(|served| served.name == route.name));
            let known = known.map(|served| &*served.metrics);
            let metrics = metrics.route_after(&route.name, initial_methods(route), known);
            ServedRoute { name: route.name.clone(), route: route.clone(), metrics }
        });
        let same_plans = before
            .filter(|before| before.config.plans == config.plans && before.config.default_plan == config.default_plan);
        let same_failures = before.filter(|before| before.config.tokens.failures == config.tokens.failures);
        Ok(Self {
            plans: same_plans.map_or_else(|| Arc::new(Plans::new(&config)), |before| before.plans.clone()),
            failures: same_failures
                .map_or_else(|| Arc::new(Failures::new(&config.tokens.failures)), |before| before.failures.clone()),
            upstreams,
            table,
            routes: routes.collect(),
            _certificates: expiries.collect(),
            admin_tls,
            tls: Tls { acceptor: TlsAcceptor::from(Arc::new(settings)), certificates },
            config: Arc::new(config),
        })
    }

    /// The certificates of every listener.
    pub(crate) fn certificates(&self) -> Vec<Arc<Certificates>> {
        let listeners = std::iter::once(&self.tls).chain(&self.admin_tls);
        listeners.map(|tls| tls.certificates.clone()).collect()
    }

    /// The routes for one worker. Its requests hold them, and so change no counter of references that others change.
    pub(crate) fn routes_for_worker(&self) -> Vec<Arc<ServedRoute>> {
        let of_worker = |served: &ServedRoute| Arc::new(ServedRoute { name: (*served.name).into(), ..served.clone() });
        self.routes.iter().map(of_worker).collect()
    }

    /// Each route and what is counted on it, in the order of the configuration.
    pub(crate) fn routes(&self) -> impl Iterator<Item = (&Arc<config::Route>, &Arc<RouteMetrics>)> {
        self.routes.iter().map(|served| (&served.route, &served.metrics))
    }

    /// What has changed in files whose names are the same, in short texts.
    pub(crate) fn changed_files(&self, before: &Self) -> Vec<String> {
        let of_admin = self.admin_tls.as_ref().zip(before.admin_tls.as_ref());
        let of_admin = of_admin.map(|(now, before)| now.certificates.changed(&before.certificates)).unwrap_or_default();
        let certificates = self.tls.certificates.changed(&before.tls.certificates).into_iter().chain(of_admin);
        let certificates = certificates.map(|file| format!("certificate {} exchanged", file.display()));
        let upstreams = self.upstreams.with_changed_files(&before.upstreams);
        certificates.chain(upstreams.into_iter().map(|name| format!("files of upstream {name} changed"))).collect()
    }
}

/// The methods that are counted from the start: those of the route; the two most usual ones where it takes all.
fn initial_methods(route: &config::Route) -> &[Method] {
    if route.methods.is_empty() { &[Method::GET, Method::POST] } else { &route.methods }
}
