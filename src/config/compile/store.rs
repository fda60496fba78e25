//! `store` and `tokens`: where tokens and limits live, and how tokens look.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::redis::redis;
use crate::config::units::{HOUR, SECOND, parse_limit};
use crate::config::{Expected, FailureLimits, Field, Section, Store, TokenSettings};

/// Longer than most outages of Redis. During an outage nobody can revoke a token either; the risk is an instance that alone is
/// cut off from Redis.
const CACHE_TTL: Duration = Duration::from_secs(600);
/// A look-up of an unknown token costs Redis about a microsecond.
const LOOKUPS: u32 = 500;
const FAILURES: (NonZeroU32, NonZeroU32) =
    (NonZeroU32::new(60).expect("not zero"), NonZeroU32::new(60_000).expect("not zero"));
const REMEDY: &str = "write `store: memory`, or `store: { redis: { url: \"redis://127.0.0.1:6379\" } }`";

/// `None` if it was reported.
pub(super) fn store(file: &Section<'_>) -> Option<Store> {
    let Some(field) = file.get("store") else { return Some(Store::Memory) };
    if !field.is_map() {
        // The text is not repeated: it may be a URL with a password.
        let is_memory = field.text()? == "memory";
        let wrong = || format!("must be memory, or a map with the key redis ({REMEDY})");
        return field.accept(is_memory.then_some(Store::Memory).ok_or_else(wrong));
    }
    let s = field.section();
    redis(&s.require("redis", REMEDY)?).map(|store| Store::Redis(Box::new(store)))
}

/// `store` is `None` if it is not known: then nothing is said about the file.
pub(super) fn tokens(field: &Field<'_>, store: Option<&Store>) -> TokenSettings {
    let s = field.section();
    TokenSettings {
        prefix: s.or("prefix", "kal_live".to_owned(), prefix).into(),
        file: file(&s, store),
        realm: s.or("realm", "api".to_owned(), realm).into(),
        cache_ttl: s.or("cache_ttl", CACHE_TTL, |f| f.duration(SECOND..=HOUR)),
        cache_size: s.or("cache_size", 100_000, |f| f.number(100..=10_000_000)),
        failures: failures(&s.field_of("failures")),
    }
}

fn failures(field: &Field<'_>) -> FailureLimits {
    let s = field.section();
    FailureLimits {
        limit: s.or("limit", Some(FAILURES), |f| f.or_none(failure_limit)),
        ipv4_prefix: s.or("ipv4_prefix", 32, |f| f.number(8..=32)),
        ipv6_prefix: s.or("ipv6_prefix", 64, |f| f.number(16..=128)),
        lookups: s.or("lookups", LOOKUPS, |f| f.number(10..=100_000)),
    }
}

fn failure_limit(field: &Field<'_>) -> Option<(NonZeroU32, NonZeroU32)> {
    let text = field.word()?;
    let limit = parse_limit(&text).map_err(|message| format!("{message}, or be none, not {}", field.shown()));
    let (count, window_ms) = field.accept(limit)?;
    let wrong = "must allow at least one failure (for example 60/1m, or none)";
    Some((field.accept(NonZeroU32::new(count).ok_or(wrong))?, window_ms))
}

fn prefix(field: &Field<'_>) -> Option<String> {
    let prefix = field.name(32, "A-Z a-z 0-9 _")?;
    let has_bare_ends = !prefix.starts_with('_') && !prefix.ends_with('_');
    let wrong = "must not start or end with an underscore (Callgate adds one after it)";
    field.accept(has_bare_ends.then_some(prefix).ok_or(wrong))
}

fn realm(field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    let is_realm = (1..=64).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\');
    field.must_be("1 to 64 visible ASCII characters except quotes and backslashes", is_realm.then_some(text))
}

fn file(s: &Section<'_>, store: Option<&Store>) -> Option<PathBuf> {
    let file = s.get("file");
    match store? {
        Store::Memory => {
            let remedy = "the memory store reads its tokens from there; for example `file: tokens.yaml`";
            s.require("file", remedy)?.file(Expected::Tokens)
        }
        Store::Redis(_) => {
            let wrong = "is for `store: memory` only: with Redis, tokens live there (remove it)";
            file.and_then(|file| file.accept(Err(wrong)))
        }
    }
}
