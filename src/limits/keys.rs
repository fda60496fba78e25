//! What a token's keys in Redis are called.

use smallvec::SmallVec;

use super::question::Question;
use crate::config::{Limit, RouteLimits};
use crate::store::Redis;

pub(super) type Key = SmallVec<[u8; 64]>;

/// `<namespace>:{<token id>}:<name>`: the braces put all keys of a token into one slot of a cluster.
pub(super) fn key(redis: &Redis, token_id: &str, name: &str) -> Key {
    let mut key = Key::new();
    for part in [redis.namespace(), ":{", token_id, "}:", name] {
        key.extend_from_slice(part.as_bytes());
    }
    key
}

/// The log of a token for a route.
pub(super) fn route_key(redis: &Redis, token_id: &str, own: &RouteLimits) -> Key {
    let mut key = key(redis, token_id, "log/");
    key.extend_from_slice(own.route.as_bytes());
    key
}

/// The logs that a question is about, and the limits on them.
pub(super) fn logs<'q>(redis: &Redis, question: &Question<'q>) -> SmallVec<[(Key, &'q [Limit]); 2]> {
    let Question { asker, plan, charge } = *question;
    let plan = (!plan.limits.is_empty()).then(|| (key(redis, asker.token_id, "log"), &plan.limits[..]));
    let route = charge.limits.map(|own| (route_key(redis, asker.token_id, own), &own.limits[..]));
    plan.into_iter().chain(route).collect()
}

/// Where it is kept what has been merged into a log: `…:merged` beside `…:log`.
pub(super) fn merged_key(log: &[u8]) -> Vec<u8> {
    let (name, kept) = (b"}:log", b"}:merged");
    // Neither a namespace nor a token's id has braces; a route, which may follow, may.
    let at = log.windows(name.len()).position(|part| part == name).unwrap_or(log.len());
    [&log[..at], kept, log.get(at + name.len()..).unwrap_or_default()].concat()
}
