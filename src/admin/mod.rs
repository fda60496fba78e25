//! The second server: metrics and health, for the operator's machines only.

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

use crate::shutdown::Shutdown;
use crate::store::StoreHealth;
use crate::telemetry::Metrics;

/// A request must come, and a connection may stay idle, for so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// After a failed accept so long a pause.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the admin listener answers from.
pub struct Admin {
    metrics: Arc<Metrics>,
    store: Option<Arc<StoreHealth>>,
    shutdown: Shutdown,
}

impl Admin {
    /// `store` is there when readiness depends on Redis.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, store: Option<Arc<StoreHealth>>, shutdown: Shutdown) -> Self {
        Self { metrics, store, shutdown }
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
            let response = self.answer(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
        if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "an admin connection broke off");
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        match request.uri().path() {
            "/metrics" | "/livez" | "/readyz" if !is_read => {
                let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Use GET or HEAD.");
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
                response
            }
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
            _ => problem(StatusCode::NOT_FOUND, "not_found", "Try /metrics, /livez or /readyz."),
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

fn problem(status: StatusCode, code: &str, message: &str) -> Response<Full<Bytes>> {
    respond(status, "application/json", serde_json::json!({ "message": message, "code": code }).to_string())
}
