//! What an operator should know of a Redis that answers, at the start and after an outage: whether it may lose tokens, or has.

use std::sync::Arc;

use crate::auth::TokenCache;
use crate::store::{Redis, Retention, StoreHealth};
use crate::tokens::RedisTokens;

/// Looks whenever Redis begins to answer. Never returns.
pub(super) async fn run(redis: Redis, cache: Arc<TokenCache>, health: Arc<StoreHealth>) {
    let mut recoveries = health.recoveries();
    recoveries.mark_changed();
    let tokens = RedisTokens::new(redis.clone());
    let (mut reported, mut knew_tokens) = (Retention::default(), false);
    // The sender lives as long as `health`.
    while recoveries.changed().await.is_ok() {
        if !health.has_been_up() {
            continue;
        }
        let retention = redis.retention().await;
        for warning in retention.news(&reported) {
            tracing::warn!("{warning}");
        }
        reported = retention;
        if let Ok(knows_tokens) = tokens.knows_any().await {
            // A token in the cache was in Redis before.
            if (knew_tokens || cache.len() > 0) && !knows_tokens {
                tracing::error!("Redis has come back without any token, so every request gets 401: restore its data");
            }
            knew_tokens |= knows_tokens;
        }
    }
}
