//! Watching over the records of tokens with open calls, in Redis: announcements for speed, a sweep for certainty, a clock for ends.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio::sync::Notify;

use super::OpenCalls;
use crate::auth::cache::TokenCache;
use crate::auth::principal::principal_of;
use crate::auth::refusal::{Reason, Refusal};
use crate::store::{ChannelEvent, Redis, StoreError, Subscription};
use crate::tokens::RedisTokens;

/// How often is looked whose time is over.
const CLOCK: Duration = Duration::from_millis(200);
/// The pause between two sweeps. A lost announcement costs this, and the length of a sweep.
const SWEEP_PAUSE: Duration = Duration::from_secs(3);
/// A sweep asks for so many versions at one time, and not more often than this: at most 5,120 a second.
const SWEEP_STEP: (usize, Duration) = (128, Duration::from_millis(25));
/// Records that are read at one time.
const READS: usize = 64;

/// Ends the calls of tokens whose records change in Redis, passes on what is announced, and notes when changes may be missed.
pub struct RecordWatch {
    redis: Redis,
    tokens: RedisTokens,
    cache: Arc<TokenCache>,
    calls: Arc<OpenCalls>,
    announced: Box<dyn Fn(&str) + Send + Sync>,
    sweep_now: Notify,
}

impl RecordWatch {
    /// Watches over `calls`. `cache` holds the plans of the same configuration; `announced` is told all that is
    /// announced: the id of a token whose record has changed, or what others announce there.
    #[must_use]
    pub fn new(
        redis: Redis,
        cache: Arc<TokenCache>,
        calls: Arc<OpenCalls>,
        announced: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        let tokens = RedisTokens::new(redis.clone());
        Self { redis, tokens, cache, calls, announced: Box::new(announced), sweep_now: Notify::new() }
    }

    /// Returns after the first attempt to subscribe, with the future that watches for ever.
    pub async fn start(self) -> impl Future<Output = ()> + Send + 'static {
        let mut announcements = self.redis.subscribe(self.tokens.channel());
        let first = announcements.next().await;
        self.handle(first).await;
        async move {
            tokio::join!(self.listen(announcements), self.resolve_doubts(), self.sweep(), clock(&self.calls));
        }
    }

    async fn listen(&self, mut announcements: Subscription) {
        loop {
            let event = announcements.next().await;
            self.handle(event).await;
        }
    }

    async fn handle(&self, event: ChannelEvent) {
        match event {
            // Something may have been said while nobody listened.
            ChannelEvent::Begins => {
                self.cache.changes.subscribed();
                self.sweep_now.notify_one();
            }
            ChannelEvent::Messages(messages) => {
                for id in messages.iter().filter_map(|message| std::str::from_utf8(message).ok()) {
                    (self.announced)(id);
                    // Reading it here would keep the next announcement waiting.
                    if self.calls.announce(id) {
                        self.calls.doubt(id);
                    }
                }
            }
            ChannelEvent::Lost => {
                self.cache.changes.subscription_lost();
                // If Redis is still there, changes are made that nobody tells this process of.
                let asked = self.cache.changes.epoch();
                if let Ok(_) | Err(StoreError::Refused(_)) = self.redis.call(&redis::cmd("PING")).await {
                    self.cache.changes.redis_answered(asked);
                }
            }
        }
    }

    async fn resolve_doubts(&self) {
        loop {
            let doubtful = self.calls.doubted().await;
            self.read_again(doubtful.iter().map(|id| &**id)).await;
        }
    }

    async fn sweep(&self) {
        loop {
            let tokens: Vec<_> = self.calls.tokens().into_iter().collect();
            for step in tokens.chunks(SWEEP_STEP.0) {
                let versions = join_all(step.iter().map(|(id, _)| self.tokens.version(id))).await;
                let changed = step.iter().zip(versions).filter_map(|((id, known), found)| {
                    // Without an answer nothing is known.
                    let found = found.ok()?;
                    let same = found.is_some_and(|found| known.iter().all(|known| *known == found));
                    (!same).then_some(&**id)
                });
                let changed: Vec<&str> = changed.collect();
                self.read_again(changed.into_iter()).await;
                tokio::time::sleep(SWEEP_STEP.1).await;
            }
            let _ = tokio::time::timeout(SWEEP_PAUSE, self.sweep_now.notified()).await;
        }
    }

    /// Reads records and judges the calls of their tokens.
    async fn read_again(&self, ids: impl Iterator<Item = &str>) {
        let ids: Vec<&str> = ids.collect();
        for wave in ids.chunks(READS) {
            let records = join_all(wave.iter().map(|id| self.tokens.read(id))).await;
            let now = SystemTime::now();
            for (id, read) in wave.iter().zip(records) {
                match read {
                    Ok(Some((version, record))) => {
                        let current =
                            |call: &super::Principal| principal_of(&record, version, call.hash, &self.cache.plans, now);
                        self.calls.judge(id, now, current);
                    }
                    Ok(None) => self.calls.judge(id, now, |_| Err(Refusal::Invalid(Reason::Unknown))),
                    // The sweep comes back to it.
                    Err(error) => tracing::debug!(id, %error, "can't read a record again"),
                }
            }
        }
    }
}

/// Ends calls when their time is over, for ever.
pub(in crate::auth) async fn clock(calls: &OpenCalls) {
    loop {
        calls.expire(SystemTime::now());
        tokio::time::sleep(CLOCK).await;
    }
}
