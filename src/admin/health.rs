//! `/livez`, `/readyz` and `/metrics`: for probes and for Prometheus.

use http::StatusCode;

use super::backend::AdminBackend;
use super::error::ApiError;
use super::request::ApiRequest;
use super::response::{AdminResponse, response};

const PLAIN: &str = "text/plain; charset=utf-8";

pub(super) async fn live(_: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    Ok(response(StatusCode::OK, PLAIN, "ok\n"))
}

pub(super) async fn ready(request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    Ok(match unready(request.backend) {
        None => response(StatusCode::OK, PLAIN, "ready\n"),
        Some(why) => response(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("not ready: {why}\n")),
    })
}

/// Prometheus's text format.
pub(super) async fn metrics(request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    match request.backend.metrics.encode() {
        Ok(text) => Ok(response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)),
        Err(error) => {
            tracing::error!(%error, "can't encode the metrics");
            Err(ApiError::Unavailable("The metrics can't be encoded.".to_owned()))
        }
    }
}

/// Why traffic should go elsewhere. An outage of Redis that began after the start counts only if the outage policy refuses every
/// request.
fn unready(backend: &AdminBackend) -> Option<&'static str> {
    if backend.shutdown.is_announced() {
        return Some("draining");
    }
    let store = backend.store.as_ref()?;
    if !store.has_been_up() {
        return Some("Redis has not answered since the start, so no token is known");
    }
    store.denies_all().then_some("Redis does not answer, and store.redis.on_failure denies every request")
}
