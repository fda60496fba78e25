//! `/livez`, `/readyz` and `/metrics`: for probes and for Prometheus.

use http::StatusCode;

use super::Admin;
use super::answer::{Answer, page};
use super::problem::Problem;

const PLAIN: &str = "text/plain; charset=utf-8";

/// The process lives.
pub(super) fn live() -> Answer {
    page(StatusCode::OK, PLAIN, "ok\n".to_owned())
}

/// Whether traffic should come here.
pub(super) fn ready(admin: &Admin) -> Answer {
    match unready(admin) {
        None => page(StatusCode::OK, PLAIN, "ready\n".to_owned()),
        Some(why) => page(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("not ready: {why}\n")),
    }
}

/// Prometheus's text format.
pub(super) fn metrics(admin: &Admin) -> Result<Answer, Problem> {
    match admin.metrics.encode() {
        Ok(text) => Ok(page(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)),
        Err(error) => {
            tracing::error!(%error, "can't encode the metrics");
            Err(Problem::Unavailable("The metrics can't be encoded.".to_owned()))
        }
    }
}

/// Why traffic should go elsewhere. An outage of Redis that began after the start is none: the outage policy decides then,
/// and all instances share it.
fn unready(admin: &Admin) -> Option<&'static str> {
    if admin.shutdown.is_announced() {
        return Some("draining");
    }
    let store = admin.desk.store.as_ref()?;
    (!store.has_been_up()).then_some("Redis has not answered since the start, so no token is known")
}
