//! `upstreams`: what endpoints are asked to find out whether they are well.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;

use crate::config::balancing::{Ask, Health};
use crate::config::reader::{Field, Section};
use crate::config::upstream::Protocol;
use crate::config::yaml::Value;

use super::upstreams::is_authority;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

pub(super) fn health(field: &Field<'_>, protocol: Protocol) -> Option<Health> {
    let known = &["path", "grpc", "host", "status", "interval", "jitter", "timeout", "healthy", "unhealthy"];
    let s = field.section(known);
    let ask = ask(&s, protocol);
    Some(Health {
        host: s.or("host", None, |f| host(f).map(Some)),
        interval: s.or("interval", 10 * SECOND, |f| f.duration(100 * MILLISECOND..=HOUR)),
        jitter: s.or("jitter", 10, |f| f.percent(0..=100)),
        timeout: s.or("timeout", 2 * SECOND, |f| f.duration(10 * MILLISECOND..=60 * SECOND)),
        healthy: s.or("healthy", 2, |f| f.number(1..=100)),
        unhealthy: s.or("unhealthy", 3, |f| f.number(1..=100)),
        ask: ask?,
    })
}

fn ask(s: &Section<'_>, protocol: Protocol) -> Option<Ask> {
    let Some(field) = s.get("grpc") else {
        let path = s.require("path", "for example /healthz, or grpc: true").and_then(|f| path(&f));
        let status = s.or("status", vec![200..=299], statuses);
        return path.map(|path| Ask::Http { path, status });
    };
    for key in ["path", "status"] {
        if let Some(other) = s.get(key) {
            other.error("is of no use beside `grpc`, which asks in gRPC's own way (remove one of them)");
        }
    }
    if protocol != Protocol::Http2 {
        field.error("is asked over HTTP/2 (set `protocol: http2`, or ask with `path`)");
    }
    service(&field).map(|service| Ask::Grpc { service })
}

/// `true`, or the name of a service.
fn service(field: &Field<'_>) -> Option<Arc<str>> {
    match field.scalar()?.as_ref() {
        Value::Bool(true) => Some(Arc::from("")),
        Value::Text(_) => {
            let is_part = |b: u8| b.is_ascii_alphanumeric() || b"_.-/".contains(&b);
            field.name(256, "A-Z a-z 0-9 _ . - /", is_part).map(Arc::from)
        }
        Value::Bool(false) | Value::Null | Value::Number(_) | Value::List(_) | Value::Map(_) => {
            field.error(format!(
                "must be true, or the name of a service (for example voice.Calls), not {}",
                field.shown()
            ));
            None
        }
    }
}

fn path(field: &Field<'_>) -> Option<Arc<str>> {
    let text = field.text()?;
    if !text.starts_with('/') || text.contains('#') || PathAndQuery::try_from(text.as_str()).is_err() {
        let remedy = "for example /healthz";
        field.error(format!("must be a path, and a query if need be ({remedy}), not {}", field.shown()));
        return None;
    }
    Some(Arc::from(text))
}

fn host(field: &Field<'_>) -> Option<Arc<str>> {
    let text = field.text()?;
    if !is_authority(&text) {
        field.error(format!("must be a host, with a port if need be, not {}", field.shown()));
        return None;
    }
    Some(Arc::from(text))
}

/// Statuses and ranges of them, one or a list.
fn statuses(field: &Field<'_>) -> Option<Vec<RangeInclusive<u16>>> {
    let items = if field.is_list() { field.items() } else { vec![field.clone()] };
    if items.is_empty() {
        field.error("is empty (for example [200-299])");
        return None;
    }
    items.iter().map(status).collect()
}

fn status(field: &Field<'_>) -> Option<RangeInclusive<u16>> {
    let text = field.word()?;
    let (from, to) = text.split_once('-').unwrap_or((&text, &text));
    let read = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    match (read(from), read(to)) {
        (Some(from), Some(to)) if from <= to => Some(from..=to),
        (_, _) => {
            field.error(format!(
                "must be a status or a range of them (for example 204 or 200-299), not {}",
                field.shown()
            ));
            None
        }
    }
}
