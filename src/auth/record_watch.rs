//! Watching over the records of tokens with open calls, in Redis: announcements for speed, a sweep for certainty, a clock for ends.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::sync::Notify;

use super::cache::TokenCache;
use super::open_calls::OpenCalls;
use super::principal::{Principal, principal_of};
use super::refusal::Refused;
use crate::store::{ChannelEvent, Redis, StoreError, Subscription};
use crate::tokens::{Plans, RedisTokens};

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
    plans: Arc<ArcSwap<Plans>>,
    calls: Arc<OpenCalls>,
    announced: Box<dyn Fn(&str) -> bool + Send + Sync>,
    sweep_now: Notify,
}

impl RecordWatch {
    /// Watches over `calls`. `plans` are those of the configuration in force; `announced` is told all that is
    /// announced: the id of a token whose record has changed, or what others announce there. It returns whether that is about a token.
    pub(crate) fn new(
        redis: Redis,
        cache: Arc<TokenCache>,
        plans: Arc<ArcSwap<Plans>>,
        calls: Arc<OpenCalls>,
        announced: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Self {
        let tokens = RedisTokens::new(redis.clone());
        Self { redis, tokens, cache, plans, calls, announced: Box::new(announced), sweep_now: Notify::new() }
    }

    /// Returns after the first attempt to subscribe, with the future that watches for ever.
    pub async fn start(self) -> impl Future<Output = ()> + Send + 'static {
        let mut announcements = self.redis.subscribe(self.tokens.channel());
        let first = announcements.next().await;
        self.handle(first).await;
        async move {
            tokio::join!(self.listen(announcements), self.recheck(), self.sweep(), self.calls.expire_on_time());
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
                    if (self.announced)(id) {
                        // The record is read elsewhere, so that the next announcement need not wait.
                        self.calls.announce(id);
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

    async fn recheck(&self) {
        loop {
            let ids = self.calls.rechecks.next().await;
            self.read_again(ids.iter().map(|id| &**id).collect()).await;
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
                self.read_again(changed.collect()).await;
                tokio::time::sleep(SWEEP_STEP.1).await;
            }
            let _ = tokio::time::timeout(SWEEP_PAUSE, self.sweep_now.notified()).await;
        }
    }

    /// Reads records and judges the calls of their tokens.
    async fn read_again(&self, ids: Vec<&str>) {
        for wave in ids.chunks(READS) {
            let records = join_all(wave.iter().map(|id| self.tokens.read(id))).await;
            let (now, plans) = (SystemTime::now(), self.plans.load());
            for (id, read) in wave.iter().zip(records) {
                match read {
                    Ok(Some((version, record))) => {
                        let current = |call: &Principal| principal_of(&record, version, call.hash, &plans, now);
                        self.calls.judge(id, now, current);
                    }
                    Ok(None) => self.calls.judge(id, now, |_| Err(Refused::UNKNOWN)),
                    // The sweep comes back to it.
                    Err(error) => tracing::debug!(id, %error, "can't read a record again"),
                }
            }
        }
    }
}
