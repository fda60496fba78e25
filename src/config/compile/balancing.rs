//! `upstreams`: how endpoints are chosen, ejected and tried again, and how many requests an upstream gets.

use std::sync::Arc;

use http::HeaderName;

use super::health::health;
use crate::config::units::{DAY, HOUR, MILLISECOND, MINUTE, SECOND};
use crate::config::{Balance, Balancing, Ejection, EndpointShare, Field, HashKey, Protocol, Retry, RetryOn, Section};

/// The keys of an upstream that are read here.
pub(super) fn balancing(s: &Section<'_>, shares: Vec<EndpointShare>, protocol: Protocol) -> Balancing {
    let balancing = Balancing {
        shares,
        balance: s.or("balance", Balance::LeastRequests, balance),
        slow_start: s.or("slow_start", None, |f| f.or_none(|f| f.duration(SECOND..=HOUR))),
        health: s.optional("health", |f| health(f, protocol)),
        ejection: ejection(&s.field_of("ejection")),
        retry: retry(&s.field_of("retry")),
        max_requests: s.or("max_requests", None, |f| f.or_none(|f| f.number(1..=1_000_000))),
        max_waiting: s.or("max_waiting", 100, |f| f.number(0..=100_000)),
        max_wait: s.or("max_wait", SECOND, |f| f.duration(10 * MILLISECOND..=MINUTE)),
    };
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
