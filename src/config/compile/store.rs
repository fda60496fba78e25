//! `store` and `tokens`: where tokens and limits live, and how tokens look.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::redis::redis;
use crate::config::model::{Store, Tokens};
use crate::config::reader::{Field, Section};

const SECOND: Duration = Duration::from_secs(1);
/// Longer than most outages of Redis. While it is down nobody can revoke a token either; an instance that alone is cut off is the risk.
const CACHE_TTL: Duration = Duration::from_secs(600);
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
    redis(&s.require("redis", REMEDY)?).map(Store::Redis)
}

/// `store` is `None` when it is not known: then nothing is said about the file.
pub(super) fn tokens(field: &Field<'_>, store: Option<&Store>) -> Tokens {
    let s = field.section(&["prefix", "file", "realm", "cache_ttl", "cache_size"]);
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
