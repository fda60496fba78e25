//! The second server: metrics, health and the API for tokens and limits, for operators only.

mod access;
mod audit;
mod backend;
mod body;
mod calls;
mod configuration;
mod connection;
mod console;
mod error;
mod events;
mod fields;
mod guard;
mod health;
mod if_match;
mod import;
mod invalid;
mod limit_service;
mod limits;
mod me;
mod observer;
mod openapi;
mod query;
mod reload;
mod request;
mod response;
mod router;
mod routes;
mod status;
mod token_actions;
mod tokens;
mod upstreams;
mod usage;
mod warning_log;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use http::header::CONNECTION;
use http::{HeaderValue, Request};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::config::{AdminAddress, REQUEST_ID, Role};
use crate::deadline::WriteTimeout;
use crate::telemetry::request_id;
use crate::tokens::ActionContext;
use access::{Access, Caller};
use connection::{Accepted, AdminPeer};
use error::ApiError;
use request::ApiRequest;
use response::{AdminResponse, set_header};
use router::{RequiredAccess, RouteLookup};

pub(crate) use backend::AdminBackend;
pub(crate) use connection::AdminSocket;
pub(crate) use events::INTERVAL as OBSERVE_INTERVAL;
pub(crate) use guard::CONFIRMATION;
pub(crate) use limit_service::LimitService;
pub(crate) use observer::Observer;
pub(crate) use reload::{LastReload, ReloadFailure, ReloadReport, ReloadRequests, ReloadResult};

/// How long a connection may wait for its next request, and take nothing of an answer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection takes no more requests after so long, and is cut after twice as long: answers that are read drop by drop must not
/// take all connections.
const MAX_AGE: Duration = Duration::from_secs(300);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections of a listener at one time; one more waits to be accepted.
const MAX_CONNECTIONS: usize = 1_024;

/// What a socket serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Everything, to callers who may.
    All,
    /// Health and metrics alone, to everybody and in clear.
    Health,
}

/// The server behind the admin listener.
pub(crate) struct Admin {
    /// By the configuration in force.
    serving: ArcSwap<AdminServing>,
}

struct AdminServing {
    access: Arc<Access>,
    backend: AdminBackend,
}

impl Admin {
    /// Serves the process that `backend` belongs to.
    pub(crate) fn new(backend: AdminBackend) -> Self {
        let access = Arc::new(Access::new(&backend.config.admin));
        Self { serving: ArcSwap::from_pointee(AdminServing { access, backend }) }
    }

    /// Serves by another configuration from the next request on.
    pub(crate) fn exchange(&self, backend: AdminBackend) {
        let before = self.serving.load();
        let access = match before.backend.config.admin == backend.config.admin {
            true => before.access.clone(),
            false => Arc::new(Access::new(&backend.config.admin)),
        };
        let access_changed = !Arc::ptr_eq(&before.access, &access);
        let observer = backend.observer.clone();
        self.serving.store(Arc::new(AdminServing { access, backend }));
        if access_changed {
            observer.access_changes.send_replace(());
        }
    }

    /// Looks at the traffic and at what is wrong, for those who will ask and those who listen. To be called every
    /// [`OBSERVE_INTERVAL`].
    pub(crate) fn observe(&self) {
        events::observe(&self.serving.load_full().backend);
    }

    /// Serves for as long as the process lives (during a drain, health matters most), or until another process serves in its place.
    pub(crate) async fn run(self: Arc<Self>, socket: AdminSocket, scope: Scope) {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let shutdown = self.serving.load().backend.shutdown.clone();
        loop {
            // Nobody closes the semaphore.
            let permit = connections.clone().acquire_owned().await;
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = shutdown.handed_over() => return,
            };
            match accepted {
                Ok(connection) => {
                    let admin = self.clone();
                    tokio::spawn(async move {
                        admin.serve(connection, scope).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::error!(%error, "can't accept connections on the admin listener");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve(self: Arc<Self>, connection: Accepted, scope: Scope) {
        let serving = self.serving.load_full();
        let tls = serving.backend.tls.clone().filter(|_| scope == Scope::All);
        let opened = timeout(serving.backend.config.listen.handshake_timeout, connection.open(tls)).await;
        drop(serving);
        let (stream, peer) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake with the admin listener failed"),
            Err(_) => return tracing::debug!("a TLS handshake with the admin listener took too long"),
        };
        let service = service_fn(|request| {
            let (admin, peer) = (&self, &peer);
            async move { Ok::<_, Infallible>(admin.respond(request, peer, scope).await) }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT);
        let stream = TokioIo::new(WriteTimeout::new(stream, IDLE_TIMEOUT));
        let mut connection = pin!(builder.serve_connection(stream, service));
        let served = match timeout(MAX_AGE, connection.as_mut()).await {
            Ok(served) => Ok(served),
            Err(_) => {
                connection.as_mut().graceful_shutdown();
                timeout(MAX_AGE, connection).await
            }
        };
        match served {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "an admin connection broke off"),
            Err(_) => tracing::debug!(?peer, "an admin connection took too long"),
        }
    }

    async fn respond(&self, request: Request<Incoming>, peer: &AdminPeer, scope: Scope) -> AdminResponse {
        let id = request_id(&request, SystemTime::now());
        let has_body = !request.body().is_end_stream();
        let serving = self.serving.load_full();
        let shutdown = serving.backend.shutdown.clone();
        let handled = serving.handle(request, peer, scope).await;
        let mut response = handled.unwrap_or_else(|error| error.into_response(&id));
        if (has_body && !response.status().is_success()) || shutdown.is_handed_over() {
            // The rest of the body may not have come, and nobody reads it; or the next request is the successor's.
            set_header(&mut response, CONNECTION, HeaderValue::from_static("close"));
        }
        set_header(&mut response, REQUEST_ID, id);
        response
    }
}

impl AdminServing {
    /// The order is the policy: requests of foreign web pages are refused first, then unknown callers; only then does the
    /// response show what exists.
    async fn handle(
        &self,
        request: Request<Incoming>,
        peer: &AdminPeer,
        scope: Scope,
    ) -> Result<AdminResponse, ApiError> {
        let path = request.uri().path().to_owned();
        let lookup = router::find(request.method(), &path);
        let access = match &lookup {
            RouteLookup::Found(route, _) => route.access,
            RouteLookup::Console(_) if scope == Scope::All => RequiredAccess::Public,
            RouteLookup::Console(_) | RouteLookup::OtherMethod(_) | RouteLookup::UnknownPath => {
                RequiredAccess::Role(Role::Read)
            }
        };
        let caller = match scope {
            Scope::All => self.authorize(&request, peer, access)?,
            Scope::Health => anybody(access)?,
        };
        let (route, id) = match lookup {
            RouteLookup::Found(route, id) => (route, id),
            RouteLookup::Console(file) => return console::serve(file, request.method(), request.headers()),
            RouteLookup::OtherMethod(allow) => return Err(ApiError::Method(allow)),
            RouteLookup::UnknownPath => {
                return Err(ApiError::NotFound("Nothing has this path; /api/openapi.json lists all paths.".to_owned()));
            }
        };
        let (head, body) = request.into_parts();
        let query = query::parse(head.uri.query(), route.query)?;
        let body = body::read(route.body, &head.headers, body).await?;
        let by = ActionContext { actor: caller.identity.actor(), now: SystemTime::now() };
        let backend = &self.backend;
        (route.handler)(ApiRequest { backend, caller, by, id, headers: &head.headers, query, body }).await
    }

    /// Refuses requests of foreign web pages and of callers that lack the needed role.
    fn authorize(
        &self,
        request: &Request<Incoming>,
        peer: &AdminPeer,
        access: RequiredAccess,
    ) -> Result<Caller, ApiError> {
        let config = &self.backend.config;
        let role = match access {
            RequiredAccess::Public => return Ok(Caller::ANYBODY),
            RequiredAccess::Metrics => Role::Read,
            RequiredAccess::Role(role) => role,
        };
        // No browser comes by a Unix socket, and behind TLS it has checked the name.
        let is_rebindable = match &config.listen.admin {
            AdminAddress::Tcp(address) => address.ip().is_loopback() && config.admin.tls.is_none(),
            AdminAddress::Unix(_) => false,
        };
        guard::check_origin(request, is_rebindable).map_err(ApiError::Foreign)?;
        if access == RequiredAccess::Metrics && config.admin.public_metrics {
            return Ok(Caller::ANYBODY);
        }
        let caller = self.access.caller(request.headers(), peer, Instant::now()).map_err(ApiError::Denied)?;
        if caller.role < role {
            return Err(ApiError::Role(role));
        }
        if !caller.identity.is_token() && role > Role::Read {
            guard::check_intent(request).map_err(ApiError::Foreign)?;
        }
        Ok(caller)
    }
}

/// Admits everybody to health and metrics, and nobody to anything else.
fn anybody(access: RequiredAccess) -> Result<Caller, ApiError> {
    match access {
        RequiredAccess::Public | RequiredAccess::Metrics => Ok(Caller::ANYBODY),
        RequiredAccess::Role(_) => {
            Err(ApiError::NotFound("This listener has /livez, /readyz and /metrics, for GET and HEAD.".to_owned()))
        }
    }
}
