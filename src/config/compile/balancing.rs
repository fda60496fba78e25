//! `upstreams`: how endpoints are chosen, checked, ejected and tried again, and how many requests an upstream gets.

use std::ops::RangeInclusive;
use std::sync::Arc;

use http::HeaderName;
use http::uri::PathAndQuery;

use super::address::is_authority;
use crate::config::units::{DAY, HOUR, MILLISECOND, MINUTE, SECOND};
use crate::config::yaml::YamlValue;
use crate::config::{
    Balance, Balancing, Ejection, EndpointShare, Field, HashKey, Health, HealthProbe, Protocol, Retry, RetryOn, Section,
};

/// The keys of an upstream that are read here.
pub(super) fn balancing(s: &Section<'_>, shares: Vec<EndpointShare>, protocol: Protocol) -> Balancing {
    let balancing = Balancing {
        shares,
        balance: s.or("balance", Balance::LeastRequests, balance),
        slow_start: s.or("slow_start", None, |f| f.or_none(|f| f.duration(SECOND..=HOUR))),
        health: s.or("health", None, |f| health_or_none(f, protocol)),
        ejection: ejection(&s.field_of("ejection")),
        retry: retry(&s.field_of("retry")),
        max_requests: s.or("max_requests", None, |f| f.or_none(|f| f.number(1..=1_000_000))),
        max_waiting: s.or("max_waiting", 100, |f| f.number(0..=100_000)),
        max_wait: s.or("max_wait", SECOND, |f| f.duration(10 * MILLISECOND..=MINUTE)),
    };
    if balancing.shares.len() > 1 && s.get("health").is_none() {
        s.field_of("health").warn(
            "is not set, so an endpoint that is down gets requests until they fail (for example \
             `health: { path: /healthz }`, or `health: none` if that is meant)",
        );
    }
    if balancing.slow_start.is_some() && matches!(balancing.balance, Balance::Hash(_)) {
        s.field_of("slow_start").warn("is not used: `balance: { hash: … }` chooses by the key alone (remove it)");
    }
    balancing
}

fn balance(field: &Field<'_>) -> Option<Balance> {
    if !field.is_map() {
        let forms =
            "least_requests, round_robin, { hash: token }, { hash: { header: NAME } } or { hash: { cookie: NAME } }";
        return match field.scalar()?.as_text() {
            Some("least_requests") => Some(Balance::LeastRequests),
            Some("round_robin") => Some(Balance::RoundRobin),
            _ => field.refuse(forms, ""),
        };
    }
    let s = field.section();
    let key = s.require("hash", "token, { header: NAME } or { cookie: NAME }")?;
    hash_key(&key).map(Balance::Hash)
}

fn hash_key(field: &Field<'_>) -> Option<HashKey> {
    if !field.is_map() {
        return field.choice(&[("token", ())]).and(Some(HashKey::Token));
    }
    let s = field.section();
    match (s.get("header"), s.get("cookie")) {
        (Some(header), None) => {
            let name = HeaderName::try_from(header.text()?).ok();
            header.must_be("the name of a header", name).map(HashKey::Header)
        }
        (None, Some(cookie)) => {
            let name = cookie.name(256, "A-Z a-z 0-9 ! # $ % & ' * + - . ^ _ ` | ~")?;
            Some(HashKey::Cookie(Arc::from(name)))
        }
        (Some(_), Some(_)) | (None, None) => {
            field.accept(Err("must name one header or one cookie (for example { header: x-call-id })"))
        }
    }
}

/// `None`: endpoints are not ejected.
fn ejection(field: &Field<'_>) -> Option<Ejection> {
    if !field.is_map() && !field.is_null() {
        let is_none = field.scalar()?.is_text("none");
        return if is_none { None } else { field.refuse("a map (for example { failures: 5 }) or none", "") };
    }
    let s = field.section();
    let time = s.or("time", 10 * SECOND, |f| f.duration(100 * MILLISECOND..=HOUR));
    let max_time = s.or("max_time", (300 * SECOND).max(time), |f| f.duration(100 * MILLISECOND..=DAY));
    if max_time < time {
        s.field_of("max_time").error("is shorter than `time`, the shortest ejection (raise this, or lower that)");
    }
    Some(Ejection {
        failures: s.or("failures", 5, |f| f.number(1..=1_000)),
        time,
        max_time,
        max_share: s.or("max_share", 80, |f| f.percent("20%")),
    })
}

fn retry(field: &Field<'_>) -> Retry {
    let s = field.section();
    let on = vec![RetryOn::Connect, RetryOn::Refused, RetryOn::Broken];
    Retry {
        on: s.or("on", on, |f| f.one_or_many().iter().map(|item| item.choice(&RetryOn::ALL)).collect()),
        attempts: s.or("attempts", 3, |f| f.number(1..=10)),
        budget: s.or("budget", 20, |f| f.percent("20%")),
        min_per_second: s.or("min_per_second", 10, |f| f.number(0..=10_000)),
    }
}

fn health_or_none(field: &Field<'_>, protocol: Protocol) -> Option<Option<Health>> {
    if !field.is_map() && !field.is_null() {
        let is_none = field.scalar()?.is_text("none");
        return if is_none { Some(None) } else { field.refuse("a map (for example { path: /healthz }) or none", "") };
    }
    health(field, protocol).map(Some)
}

fn health(field: &Field<'_>, protocol: Protocol) -> Option<Health> {
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
