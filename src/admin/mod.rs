//! The second server: metrics, health and a look at limits, for the operator's machines only.

mod guard;
mod limits;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::auth::RegistryError;
use crate::shutdown::Shutdown;
use crate::store::StoreHealth;
use crate::telemetry::Metrics;

pub use guard::CONFIRMATION;
pub use limits::{DeskError, LimitsDesk};

/// A request must come, and a connection may stay idle, for so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// After a failed accept so long a pause.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the admin listener answers from.
pub struct Admin {
    metrics: Arc<Metrics>,
    store: Option<Arc<StoreHealth>>,
    limits: LimitsDesk,
    shutdown: Shutdown,
}

impl Admin {
    /// `store` is there when readiness depends on Redis.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, store: Option<Arc<StoreHealth>>, limits: LimitsDesk, shutdown: Shutdown) -> Self {
        Self { metrics, store, limits, shutdown }
    }

    /// Serves for as long as the process lives: a drain is when health is asked for most.
    pub async fn run(self: Arc<Self>, socket: TcpListener) {
        loop {
            match socket.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(self.clone().serve(stream));
                }
                Err(error) => {
                    tracing::error!(%error, "can't accept connections on the admin listener");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let service = service_fn(|request| {
            let admin = &self;
            async move { Ok::<_, Infallible>(admin.answer(&request).await) }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
        if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "an admin connection broke off");
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let path = request.uri().path();
        if let Some(id) = path.strip_prefix("/api/limits/") {
            return self.answer_limits(request, id).await;
        }
        match path {
            "/metrics" | "/livez" | "/readyz" if !is_read => not_allowed("GET, HEAD"),
            "/metrics" => match self.metrics.encode() {
                Ok(text) => respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text),
                Err(error) => {
                    tracing::error!(%error, "can't encode the metrics");
                    problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The metrics can't be encoded.")
                }
            },
            "/livez" => respond(StatusCode::OK, "text/plain; charset=utf-8", "ok\n".to_owned()),
            "/readyz" => match self.unready() {
                None => respond(StatusCode::OK, "text/plain; charset=utf-8", "ready\n".to_owned()),
                Some(why) => {
                    respond(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", format!("not ready: {why}\n"))
                }
            },
            _ => problem(StatusCode::NOT_FOUND, "not_found", "Try /metrics, /livez, /readyz or /api/limits/TOKEN-ID."),
        }
    }

    /// GET: where a token stands. DELETE: its log is cleared.
    async fn answer_limits(&self, request: &Request<Incoming>, id: &str) -> Response<Full<Bytes>> {
        if let Err(why) = guard::check(request) {
            return problem(StatusCode::FORBIDDEN, "forbidden", why);
        }
        let answer = match *request.method() {
            Method::GET | Method::HEAD => self.limits.peek(id).await.map(|report| serde_json::json!(report)),
            Method::DELETE => self.limits.reset(id).await.map(|()| serde_json::json!({ "id": id, "reset": true })),
            _ => return not_allowed("GET, HEAD, DELETE"),
        };
        match answer {
            Ok(json) => respond(StatusCode::OK, "application/json", format!("{json}\n")),
            Err(error @ DeskError::Registry(RegistryError::Unknown { .. })) => {
                problem(StatusCode::NOT_FOUND, "not_found", &error.to_string())
            }
            Err(error @ DeskError::Contended(_)) => problem(StatusCode::CONFLICT, "contended", &error.to_string()),
            Err(error @ (DeskError::Registry(_) | DeskError::Store(_))) => {
                problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &error.to_string())
            }
        }
    }

    /// Why traffic should go elsewhere. An outage of Redis that began after the start is none: the outage policy decides then,
    /// and all instances share it.
    fn unready(&self) -> Option<&'static str> {
        if self.shutdown.is_announced() {
            return Some("draining");
        }
        let store = self.store.as_ref()?;
        (!store.has_been_up()).then_some("Redis has not answered since the start, so no token is known")
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn not_allowed(allow: &'static str) -> Response<Full<Bytes>> {
    let message = format!("Use one of {allow}.");
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &message);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

fn problem(status: StatusCode, code: &str, message: &str) -> Response<Full<Bytes>> {
    respond(status, "application/json", serde_json::json!({ "message": message, "code": code }).to_string())
}
