//! Watching over the records of tokens with open calls, in Redis: announcements for speed, a sweep for certainty, a clock for ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio::sync::Notify;

use super::OpenCalls;
use crate::auth::cache::TokenCache;
use crate::auth::principal::principal_of;
use crate::auth::refusal::{Reason, Refusal};
use crate::store::{ChannelEvent, Redis};
use crate::tokens::RedisTokens;

/// How often is looked whose time is over.
const CLOCK: Duration = Duration::from_millis(200);
/// The pause between two sweeps. A lost announcement costs this, and the length of a sweep.
const SWEEP_PAUSE: Duration = Duration::from_secs(3);
/// A sweep asks for so many versions at one time, and not more often than this: at most 5,120 a second.
const SWEEP_STEP: (usize, Duration) = (128, Duration::from_millis(25));
/// Records that are read at one time.
const READS: usize = 64;

/// Ends the calls of tokens whose records change in Redis, and passes on what is announced.
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

    /// Watches for ever.
    pub async fn run(self) {
        tokio::join!(self.listen(), self.resolve_doubts(), self.sweep(), clock(&self.calls));
    }

    async fn listen(&self) {
        let mut announcements = self.redis.subscribe(self.tokens.channel());
        loop {
            match announcements.next().await {
                // Something may have been said while nobody listened.
                ChannelEvent::Begins => self.sweep_now.notify_one(),
                ChannelEvent::Messages(messages) => {
                    let told = messages.iter().filter_map(|message| std::str::from_utf8(message).ok());
                    let told = told.inspect(|id| (self.announced)(id));
                    let open: BTreeSet<&str> = told.filter(|id| self.calls.announce(id)).collect();
                    self.read_again(open.into_iter()).await;
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
