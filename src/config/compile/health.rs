//! `upstreams`: health checks of endpoints.

use std::ops::RangeInclusive;
use std::sync::Arc;

use http::uri::PathAndQuery;

use super::address::is_authority;
use crate::config::units::{HOUR, MILLISECOND, MINUTE, SECOND};
use crate::config::yaml::YamlValue;
use crate::config::{Field, Health, HealthProbe, Protocol, Section};

pub(super) fn health(field: &Field<'_>, protocol: Protocol) -> Option<Health> {
    let s = field.section();
    let probe = probe(&s, protocol);
    Some(Health {
        host: s.optional("host", host),
        interval: s.or("interval", 10 * SECOND, |f| f.duration(100 * MILLISECOND..=HOUR)),
        jitter: s.or("jitter", 10, |f| f.percent("20%")),
        timeout: s.or("timeout", 2 * SECOND, |f| f.duration(10 * MILLISECOND..=MINUTE)),
        healthy: s.or("healthy", 2, |f| f.number(1..=100)),
        unhealthy: s.or("unhealthy", 3, |f| f.number(1..=100)),
        probe: probe?,
    })
}

fn probe(s: &Section<'_>, protocol: Protocol) -> Option<HealthProbe> {
    let Some(field) = s.get("grpc") else {
        let path = s.require("path", "for example /healthz, or grpc: true").and_then(|f| path(&f));
        let status = s.or("status", vec![200..=299], statuses);
        return path.map(|path| HealthProbe::Http { path, status });
    };
    for other in ["path", "status"].into_iter().filter_map(|key| s.get(key)) {
        other.error("has no meaning beside `grpc`, which has a request of its own (remove one of them)");
    }
    if protocol != Protocol::Http2 {
        field.error("needs HTTP/2 (set `protocol: http2`, or use `path`)");
    }
    service(&field).map(|service| HealthProbe::Grpc { service })
}

/// `true`, or the name of a service.
fn service(field: &Field<'_>) -> Option<Arc<str>> {
    match field.scalar()?.as_ref() {
        YamlValue::Bool(true) => Some(Arc::from("")),
        YamlValue::Text(_) => field.name(256, "A-Z a-z 0-9 _ . - /").map(Arc::from),
        _ => field.must_be("true, or the name of a service (for example voice.Calls)", None),
    }
}

fn path(field: &Field<'_>) -> Option<Arc<str>> {
    let text = field.text()?;
    let is_path = text.starts_with('/') && !text.contains('#') && PathAndQuery::try_from(text.as_str()).is_ok();
    field.must_be("a path with an optional query (for example /healthz)", is_path.then(|| Arc::from(text)))
}

fn host(field: &Field<'_>) -> Option<Arc<str>> {
    let text = field.text()?;
    field.must_be("a host with an optional port", is_authority(&text).then(|| Arc::from(text)))
}

/// Statuses and ranges of them, one or a list.
fn statuses(field: &Field<'_>) -> Option<Vec<RangeInclusive<u16>>> {
    let items = field.one_or_more("for example [200-299]");
    let ranges = items.iter().map(status).collect::<Option<Vec<_>>>();
    ranges.filter(|ranges| !ranges.is_empty())
}

fn status(field: &Field<'_>) -> Option<RangeInclusive<u16>> {
    let text = field.word()?;
    let (from, to) = text.split_once('-').unwrap_or((&text, &text));
    let read = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    let range = read(from).zip(read(to)).filter(|(from, to)| from <= to).map(|(from, to)| from..=to);
    field.must_be("a status or a range of them (for example 204 or 200-299)", range)
}
