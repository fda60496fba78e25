//! `GET /api/routes`: the routes of the configuration, with what each has served in the last minute.

use std::time::Instant;

use http::StatusCode;
use serde_json::{Value, json};

use super::backend::AdminBackend;
use super::error::ApiError;
use super::request::ApiRequest;
use super::response::{AdminResponse, json_response};
use crate::config::{Route, RouteAccess};
use crate::telemetry::RouteMetrics;

pub(super) async fn list(mut request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    request.query.finish()?;
    let (backend, now) = (request.backend, Instant::now());
    let routes: Value = backend.routes.iter().map(|(route, metrics)| of_route(backend, route, metrics, now)).collect();
    Ok(json_response(StatusCode::OK, &json!({ "window_seconds": 60, "routes": routes })))
}

fn of_route(backend: &AdminBackend, route: &Route, metrics: &RouteMetrics, now: Instant) -> Value {
    let upstreams = route.upstream.shares().map(|(upstream, weight)| {
        let name = backend.config.upstreams.get(upstream).map(|upstream| &*upstream.name);
        json!({ "upstream": name, "weight": weight })
    });
    let (access, permissions) = match &route.access {
        RouteAccess::Token(permissions) => ("token", &permissions[..]),
        RouteAccess::Public => ("public", &[][..]),
    };
    let traffic = backend.observer.traffic.route(&route.name, now);
    json!({
        "name": &*route.name,
        "hosts": route.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "path": &*route.path,
        "methods": route.methods.iter().map(http::Method::as_str).collect::<Vec<_>>(),
        "upstreams": upstreams.collect::<Vec<_>>(),
        "access": access,
        "permissions": permissions.iter().map(|permission| &**permission).collect::<Vec<&str>>(),
        "open_calls": metrics.calls.as_ref().map_or(0, |calls| calls.open.get()),
        "requests_per_second": traffic.requests_per_second,
        "statuses": traffic.statuses,
        "latency_ms": traffic.latency_ms,
    })
}
