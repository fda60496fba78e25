//! `upstreams`: who is chosen, who is left out, what is tried again, and the caps.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::config::balancing::{Balance, Balancing, Ejection, HashKey, Part, Retry, RetryOn};
use crate::config::reader::{Field, Section};
use crate::config::upstream::Protocol;

use super::health::health;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// The keys of an upstream that are read here.
pub(super) fn balancing(s: &Section<'_>, parts: Vec<Part>, protocol: Protocol) -> Balancing {
    if !parts.is_empty() && parts.iter().all(|part| part.backup) {
        s.field_of("endpoints").error("has backups only (at least one endpoint must be none)");
    }
    let balancing = Balancing {
        balance: s.or("balance", Balance::LeastRequests, balance),
        slow_start: s.or("slow_start", None, |f| f.duration_or_none(SECOND..=HOUR)),
        health: s.get("health").and_then(|f| health(&f, protocol)),
        ejection: s.or("ejection", Some(ejection(None)), |f| {
            if f.is_map() {
                return Some(Some(ejection(Some(f))));
            }
            let is_none = f.scalar()?.is_text("none");
            if !is_none {
                f.error(format!("must be a map (for example {{ failures: 5 }}) or none, not {}", f.kind()));
            }
            is_none.then_some(None)
        }),
        retry: retry(s.get("retry").as_ref()),
        max_requests: s.or("max_requests", None, |f| f.number_or_none(1..=1_000_000)),
        max_waiting: s.or("max_waiting", 100, |f| f.number(0..=100_000)),
        max_wait: s.or("max_wait", SECOND, |f| f.duration(10 * MILLISECOND..=60 * SECOND)),
        parts,
    };
    if balancing.slow_start.is_some() && matches!(balancing.balance, Balance::Hash(_)) {
        s.field_of("slow_start").warn("is not used: `balance: { hash: … }` goes by the key alone (remove it)");
    }
    balancing
}

/// What an endpoint is given that is written as a map; `known` has `url`, `weight` and `backup`.
pub(super) fn part(s: &Section<'_>) -> Part {
    Part { weight: s.or("weight", 1, |f| f.number(1..=100)), backup: s.or("backup", false, Field::flag) }
}

fn balance(field: &Field<'_>) -> Option<Balance> {
    if !field.is_map() {
        return if field.scalar()?.as_ref().is_text("least_requests") {
            Some(Balance::LeastRequests)
        } else if field.scalar()?.as_ref().is_text("round_robin") {
            Some(Balance::RoundRobin)
        } else {
            let forms = "least_requests, round_robin, { hash: token }, { hash: { header: NAME } } or { hash: { cookie: NAME } }";
            field.error(format!("must be {forms}, not {}", field.kind()));
            None
        };
    }
    let s = field.section(&["hash"]);
    let key = s.require("hash", "token, { header: NAME } or { cookie: NAME }")?;
    if !key.is_map() {
        return key.choice(&[("token", ())]).map(|()| Balance::Hash(HashKey::Token));
    }
    let k = key.section(&["header", "cookie"]);
    match (k.get("header"), k.get("cookie")) {
        (Some(header), None) => header_name(&header).map(HashKey::Header).map(Balance::Hash),
        (None, Some(cookie)) => {
            let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            let name = cookie.name(256, "A-Z a-z 0-9 ! # $ % & ' * + - . ^ _ ` | ~", is_token)?;
            Some(Balance::Hash(HashKey::Cookie(Arc::from(name))))
        }
        (Some(_), Some(_)) | (None, None) => {
            key.error("must name one header or one cookie (for example { header: x-call-id })");
            None
        }
    }
}

fn header_name(field: &Field<'_>) -> Option<HeaderName> {
    let text = field.text()?;
    let name = HeaderName::try_from(text.as_str()).ok();
    if name.is_none() {
        field.error(format!("must be the name of a header, not {}", field.shown()));
    }
    name
}

fn ejection(field: Option<&Field<'_>>) -> Ejection {
    let defaults = Ejection { failures: 5, time: 10 * SECOND, max_time: 300 * SECOND, max_share: 80 };
    let Some(field) = field else { return defaults };
    let s = field.section(&["failures", "time", "max_time", "max_share"]);
    let time = s.or("time", defaults.time, |f| f.duration(100 * MILLISECOND..=HOUR));
    let max_time = s.or("max_time", defaults.max_time.max(time), |f| f.duration(100 * MILLISECOND..=24 * HOUR));
    if max_time < time {
        s.field_of("max_time").error("is shorter than `time`, which is the shortest (raise this, lower that)");
    }
    Ejection {
        failures: s.or("failures", defaults.failures, |f| f.number(1..=1_000)),
        time,
        max_time,
        max_share: s.or("max_share", defaults.max_share, |f| f.percent(0..=100)),
    }
}

fn retry(field: Option<&Field<'_>>) -> Retry {
    let on = vec![RetryOn::Connect, RetryOn::Refused, RetryOn::Broken];
    let defaults = Retry { on, attempts: 3, budget: 20, min_per_second: 10 };
    let Some(field) = field else { return defaults };
    let s = field.section(&["on", "attempts", "budget", "min_per_second"]);
    Retry {
        on: s.or("on", defaults.on, |f| f.one_or_many().iter().map(|item| item.choice(&RetryOn::ALL)).collect()),
        attempts: s.or("attempts", defaults.attempts, |f| f.number(1..=10)),
        budget: s.or("budget", defaults.budget, |f| f.percent(0..=100)),
        min_per_second: s.or("min_per_second", defaults.min_per_second, |f| f.number(0..=10_000)),
    }
}
