//! What is wrong with this process, in words for an operator.

use std::time::SystemTime;

use super::super::backend::AdminBackend;
use super::super::warning_log::Finding;
use crate::certificates::ValidityFault;
use crate::config::{OnFailure, Severity, Store};
use crate::forward::UpstreamReport;
use crate::telemetry::{ProcessUsage, UpDownCounter};

/// Endpoints that are named one by one.
const MAX_ENDPOINTS: usize = 20;
/// Seconds by which Redis's clock may differ from this machine's.
const MAX_SKEW_S: i64 = 2;
/// Percent of the files, and of the connections, that may be open without a warning.
const FULL_PERCENT: u64 = 90;

/// All that is wrong at the moment.
pub(super) fn findings(
    backend: &AdminBackend,
    upstreams: &[UpstreamReport],
    usage: &ProcessUsage,
    now: SystemTime,
) -> Vec<Finding> {
    let mut all = Vec::new();
    if backend.shutdown.is_announced() {
        let text = "This instance ends: it takes no new connections, and waits for what is open.".to_owned();
        all.push(Finding::new("draining", "", text));
    }
    all.extend(of_store(backend));
    all.extend(of_endpoints(upstreams));
    all.extend(of_certificates(backend, now));
    if let Some((at, Err(failure))) = backend.last_reload.load().as_deref() {
        let mut errors = failure.problems.iter().filter(|problem| problem.severity == Severity::Error);
        let first = errors.next().map(ToString::to_string).unwrap_or_default();
        let text = format!("The last reload was refused, and the configuration before stays in force: {first}");
        all.push(Finding::new("reload_failed", "", text).since(Some(*at)));
    }
    all.extend(of_capacity(backend, usage));
    all
}

fn of_store(backend: &AdminBackend) -> Vec<Finding> {
    let mut all = Vec::new();
    let Some(health) = &backend.store else {
        if backend.metrics.token_file().get() == 0 {
            let text = "The token file can't be used as it is; the tokens before stay active. See the log.".to_owned();
            all.push(Finding::new("token_file_bad", "", text));
        }
        return all;
    };
    let state = health.state();
    let trouble = state.trouble.unwrap_or_else(|| "there is no connection".to_owned());
    if !health.has_been_up() {
        let text = format!("Redis has not answered since the start, so no token is known: {trouble}.");
        all.push(Finding::new("store_never_answered", "", text).since(Some(backend.instances.started_at())));
    } else if !state.connected {
        let on_failure = match &backend.config.store {
            Store::Redis(store) => store.on_failure,
            Store::Memory => OnFailure::Local,
        };
        let decides = match on_failure {
            OnFailure::Deny => "every request gets 503",
            OnFailure::Allow => "limits are not applied",
            OnFailure::Local => "this instance applies limits by itself",
        };
        let text = format!("Redis does not answer: {trouble}. Meanwhile {decides}.");
        all.push(Finding::new("store_unreachable", "", text).since(state.since));
    }
    let unmerged = backend.metrics.merging.waiting.get();
    if unmerged > 0 {
        let text = format!("{unmerged} requests that were admitted without Redis are not merged into it yet.");
        all.push(Finding::new("unmerged_admissions", "", text));
    }
    let skew = backend.metrics.store_clock_skew.get();
    if skew.abs() > MAX_SKEW_S {
        let direction = if skew > 0 { "ahead of" } else { "behind" };
        let text = format!("Redis's clock is {} seconds {direction} this machine's.", skew.abs());
        all.push(Finding::new("clock_skew", "", text));
    }
    all
}

fn of_endpoints(upstreams: &[UpstreamReport]) -> Vec<Finding> {
    let (mut all, mut unnamed) = (Vec::new(), 0);
    for upstream in upstreams {
        for endpoint in &upstream.endpoints {
            let why = match endpoint.state {
                "down" => "its health checks fail",
                "ejected" => "its requests failed, so it gets none for a while",
                "failing" => "its requests fail, and no other endpoint can take them",
                _ => continue,
            };
            if all.len() == MAX_ENDPOINTS {
                unnamed += 1;
                continue;
            }
            let text = format!("{} of the upstream {} is out: {why}.", endpoint.url, upstream.name);
            all.push(Finding::new("endpoint_out", &format!("{} {}", upstream.name, endpoint.url), text));
        }
    }
    if unnamed > 0 {
        all.push(Finding::new("endpoint_out", "", format!("{unnamed} more endpoints are out.")));
    }
    all
}

fn of_certificates(backend: &AdminBackend, now: SystemTime) -> Vec<Finding> {
    let faults = backend
        .certificates
        .iter()
        .flat_map(|of| of.validities())
        .filter_map(|(file, validity)| Some((file, validity.fault(now)?)));
    let findings = faults.map(|(file, fault)| {
        let code = match fault {
            ValidityFault::EndsSoon { .. } => "certificate_expiring",
            ValidityFault::Expired { .. } => "certificate_expired",
            ValidityFault::NotYetValid { .. } => "certificate_not_yet_valid",
        };
        let file = file.display().to_string();
        Finding::new(code, &file, format!("The certificate {file} {fault}."))
    });
    findings.collect()
}

fn of_capacity(backend: &AdminBackend, usage: &ProcessUsage) -> Vec<Finding> {
    let is_full = |used: u64, max: u64| used.saturating_mul(100) >= max.saturating_mul(FULL_PERCENT) && max > 0;
    let mut all = Vec::new();
    if let (Some(open), Some(max)) = (usage.open_files, usage.max_files)
        && is_full(open, max)
    {
        let text = format!("{open} of {max} files are open: raise the limit (LimitNOFILE=, ulimit -n).");
        all.push(Finding::new("open_files_near_limit", "", text));
    }
    let open: i64 = backend.connections.iter().map(UpDownCounter::get).sum();
    let max = backend.config.listen.max_connections as u64;
    if is_full(open.try_into().unwrap_or(0), max) {
        let text = format!("{open} of listen.max_connections ({max}) are open: further ones are closed at once.");
        all.push(Finding::new("connections_near_limit", "", text));
    }
    all
}
