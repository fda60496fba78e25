//! `GET /status`: whether this process is well, and all that it takes to see why not.

mod warnings;

use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;
use serde_json::{Value, json};

use super::backend::AdminBackend;
use super::configuration::last_reload_json;
use super::error::ApiError;
use super::request::ApiRequest;
use super::response::{AdminResponse, json_response};
use super::warning_log::Warning;
use crate::config::{RedisServers, RedisStore, Store};
use crate::forward::UpstreamReport;
use crate::telemetry::{LatencyReport, ProcessUsage};
use crate::tokens::Date;

const DAY_S: i64 = 86_400;

/// `GET /status`
pub(super) async fn show(mut request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    request.query.finish()?;
    Ok(json_response(StatusCode::OK, &status(request.backend)))
}

/// All that is known of this process. It costs as much as there are upstreams, certificates and instances, and asks nobody.
pub(super) fn status(backend: &AdminBackend) -> Value {
    let now = SystemTime::now();
    let usage = ProcessUsage::read();
    let upstreams = backend.upstreams.report();
    let warnings = warnings(backend, &upstreams, &usage, now);
    let (instances, shutdown) = (&backend.instances, &backend.shutdown);
    let uptime = now.duration_since(instances.started_at()).unwrap_or_default();
    let left = shutdown.progress();
    let drain = shutdown
        .is_announced()
        .then(|| json!({ "connections": left.connections, "requests": left.requests, "calls": left.calls }));
    let [https, http] = &backend.connections;
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "instance": instances.id(),
        "host": instances.host(),
        "pid": std::process::id(),
        "time": Date::new(now),
        "started_at": Date::new(instances.started_at()),
        "uptime_seconds": uptime.as_secs(),
        "well": warnings.is_empty(),
        "warnings": warnings,
        "draining": shutdown.is_announced(),
        "drain": drain,
        "takeover": {
            "path": backend.takeover.as_ref().map(|path| path.display().to_string()),
            "taken_over": shutdown.is_handed_over(),
        },
        "configuration": {
            "file": backend.config.source.display().to_string(),
            "in_force_since": Date::new(backend.in_force_since),
            "last_reload": last_reload_json(backend),
        },
        "certificates": certificates(backend, now),
        "store": store(backend),
        "instances": instances.all(),
        "upstreams": upstreams,
        "connections": {
            "open": https.get() + http.get(),
            "max": backend.config.listen.max_connections,
            "https": https.get(),
            "http": http.get(),
        },
        "requests": { "in_flight": left.requests },
        "calls": { "open": instances.calls().len() },
        "traffic": backend.observer.traffic.report(),
        "process": usage,
        "log": { "dropped_lines": backend.metrics.log_dropped.get() },
    })
}

/// What is wrong at the moment, and since when.
pub(super) fn warnings(
    backend: &AdminBackend,
    upstreams: &[UpstreamReport],
    usage: &ProcessUsage,
    now: SystemTime,
) -> Vec<Warning> {
    let findings = warnings::findings(backend, upstreams, usage, now);
    backend.observer.warnings.date(findings, backend.metrics.log_dropped.get(), now)
}

fn certificates(backend: &AdminBackend, now: SystemTime) -> Value {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    let named = backend.certificates.iter().flat_map(|certificates| certificates.with_names());
    let certificates = named.map(|(file, names, expires_at)| {
        let time = UNIX_EPOCH + std::time::Duration::from_secs(expires_at.try_into().unwrap_or(0));
        json!({
            "file": file.display().to_string(),
            "names": names,
            "expires_at": Date::new(time),
            "days_left": (expires_at - now).div_euclid(DAY_S),
        })
    });
    certificates.collect()
}

fn store(backend: &AdminBackend) -> Value {
    let Store::Redis(store) = &backend.config.store else {
        let file = backend.config.tokens.file.as_ref().map(|file| file.display().to_string());
        let good = backend.metrics.token_file().get() == 1;
        let limited = backend.metrics.tokens_limited.get();
        return json!({ "kind": "memory", "token_file": file, "token_file_good": good, "limited_tokens": limited });
    };
    let (topology, addresses) = servers(store);
    let health = backend.store.as_ref().map(|health| health.state());
    let (connected, since, trouble) = health.map_or((false, None, None), |it| (it.connected, it.since, it.trouble));
    let pings = backend.instances.ping_times().unwrap_or_default();
    json!({
        "kind": "redis",
        "topology": topology,
        "addresses": addresses,
        "on_failure": store.on_failure.as_str(),
        "connected": connected,
        "since": Date::new(since.unwrap_or_else(|| backend.instances.started_at())),
        "trouble": trouble,
        "latency_ms": LatencyReport::of_times(pings),
        "unmerged_admissions": backend.metrics.merging.waiting.get(),
        "clock_skew_seconds": backend.metrics.store_clock_skew.get(),
    })
}

/// What kind of Redis it is, and the addresses in the configuration, without logins.
fn servers(store: &RedisStore) -> (&'static str, Vec<String>) {
    let (topology, nodes) = match &store.servers {
        RedisServers::Single(node) => ("single", std::slice::from_ref(node)),
        RedisServers::Cluster(seeds) => ("cluster", &seeds[..]),
        RedisServers::Sentinel(sentinel) => ("sentinel", &sentinel.nodes[..]),
    };
    (topology, nodes.iter().map(ToString::to_string).collect())
}
