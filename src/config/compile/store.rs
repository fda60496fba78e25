//! `store` and `tokens`: where tokens and limits live, and how tokens look.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::redis::redis;
use crate::config::model::{FailureLimits, Store, Tokens};
use crate::config::reader::{Field, Section};
use crate::config::units::parse_limit;

const SECOND: Duration = Duration::from_secs(1);
/// Longer than most outages of Redis. While it is down nobody can revoke a token either; an instance that alone is cut off is the risk.
const CACHE_TTL: Duration = Duration::from_secs(600);
/// 60 in a minute; a look-up of an unknown token costs Redis about a microsecond.
const FAILURES: FailureLimits = FailureLimits {
    limit: Some((NonZeroU32::new(60).expect("not zero"), NonZeroU32::new(60_000).expect("not zero"))),
    ipv4_prefix: 32,
    ipv6_prefix: 64,
    lookups: 500,
};
const REMEDY: &str = "write `store: memory`, or `store: { redis: { url: \"redis://127.0.0.1:6379\" } }`";

/// `None` when what stands there is neither.
pub(super) fn store(file: &Section<'_>) -> Option<Store> {
    let Some(field) = file.get("store") else { return Some(Store::Memory) };
    if !field.is_map() {
        if field.text()? == "memory" {
            return Some(Store::Memory);
        }
        // Not repeated: it may well be a URL with a password.
        field.error(format!("must be memory, or a map with the key redis ({REMEDY})"));
        return None;
    }
    let s = field.section(&["redis"]);
    redis(&s.require("redis", REMEDY)?).map(|store| Store::Redis(Box::new(store)))
}

/// `store` is `None` when it is not known: then nothing is said about the file.
pub(super) fn tokens(field: &Field<'_>, store: Option<&Store>) -> Tokens {
    let s = field.section(&["prefix", "file", "realm", "cache_ttl", "cache_size", "failures"]);
    let prefix = |f: &Field<'_>| {
        f.name(32, "A-Z a-z 0-9 _", |b| b.is_ascii_alphanumeric() || b == b'_').filter(|p| no_edge(f, p))
    };
    let realm = |f: &Field<'_>| {
        f.name(64, "visible ASCII characters but quotes and backslashes", |b| {
            (b == b' ' || b.is_ascii_graphic()) && b != b'"' && b != b'\\'
        })
    };
    Tokens {
        prefix: s.or("prefix", "kal_live".to_owned(), prefix).into(),
        file: tokens_file(&s, store),
        realm: Arc::from(s.or("realm", "api".to_owned(), realm)),
        cache_ttl: s.or("cache_ttl", CACHE_TTL, |f| f.duration(SECOND..=3_600 * SECOND)),
        cache_size: s.or("cache_size", 100_000, |f| f.number(100..=10_000_000)),
        failures: s.get("failures").map_or_else(|| FAILURES.clone(), |f| failures(&f)),
    }
}

fn failures(field: &Field<'_>) -> FailureLimits {
    let s = field.section(&["limit", "ipv4_prefix", "ipv6_prefix", "lookups"]);
    FailureLimits {
        limit: s.or("limit", FAILURES.limit, failure_limit),
        ipv4_prefix: s.or("ipv4_prefix", FAILURES.ipv4_prefix, |f| f.number(8..=32)),
        ipv6_prefix: s.or("ipv6_prefix", FAILURES.ipv6_prefix, |f| f.number(16..=128)),
        lookups: s.or("lookups", FAILURES.lookups, |f| f.number(10..=100_000)),
    }
}

/// `None` in an answer: any number.
fn failure_limit(field: &Field<'_>) -> Option<Option<(NonZeroU32, NonZeroU32)>> {
    let text = field.word()?;
    if text == "none" {
        return Some(None);
    }
    match parse_limit(&text).map(|(count, window_ms)| (NonZeroU32::new(count), window_ms)) {
        Ok((Some(count), window_ms)) => Some(Some((count, window_ms))),
        Ok((None, _)) => {
            field.error("must let authentication fail at least once (write for example 60/1m, or none)");
            None
        }
        Err(message) => {
            field.error(format!("{message}, or be none, not {}", field.shown()));
            None
        }
    }
}

fn no_edge(field: &Field<'_>, prefix: &str) -> bool {
    let bare = !prefix.starts_with('_') && !prefix.ends_with('_');
    if !bare {
        field.error("must not start or end with an underscore (Callgate puts one behind it)");
    }
    bare
}

fn tokens_file(s: &Section<'_>, store: Option<&Store>) -> Option<PathBuf> {
    match store? {
        Store::Memory => {
            let remedy = "the memory store reads its tokens from there; for example `file: tokens.yaml`";
            s.require("file", remedy)?.file(true)
        }
        Store::Redis(_) => {
            if let Some(file) = s.get("file") {
                file.error("goes with `store: memory` only: with Redis, tokens live there (remove it)");
            }
            None
        }
    }
}
