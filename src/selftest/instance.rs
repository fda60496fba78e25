//! An instance of the gateway as far as limits go, on a thread, with connections and memory of its own.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use futures_util::future;
use tokio::sync::oneshot;

use super::target::VERSION;
use crate::config::{Plan, RedisStore};
use crate::limits::{Decision, DenyCache, LimitOutcome, LimitSubject, Limiter, MemoryLimiter, RedisLimiter};
use crate::store::{Redis, StoreHealth};

/// Instances that work side by side.
pub(super) const INSTANCES: usize = 4;
/// After a decision without an answer, a decider waits so long before the next.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// Tokens that its memory has room for: more than the test uses.
const ROOM: usize = 4_096;

/// One instance.
pub(super) struct Instance {
    pub(super) redis: Redis,
    limiter: Limiter,
    denials: Arc<DenyCache>,
}

impl Instance {
    pub(super) async fn open(store: &RedisStore) -> anyhow::Result<Self> {
        let redis = open(store).await?;
        let denials = Arc::new(DenyCache::new(ROOM));
        let local = Arc::new(MemoryLimiter::new(ROOM));
        let limiter = RedisLimiter::new(redis.clone(), store.on_failure, local, denials.clone());
        Ok(Self { redis, limiter: Limiter::Redis(limiter), denials })
    }

    /// Decides on one request, always by asking Redis; `None` if nobody decided.
    pub(super) async fn decide(&self, token_id: &str, plan: &Plan) -> Option<Decision> {
        self.denials.forget(token_id);
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        match self.limiter.decide(&LimitSubject { token_id, version: VERSION }, plan, 1, now_ms).await {
            Ok(LimitOutcome::Decided(decision, _)) => Some(decision),
            Ok(LimitOutcome::Stale) | Err(_) => None,
        }
    }
}

/// A connection of its own, standing or not.
pub(super) async fn open(store: &RedisStore) -> anyhow::Result<Redis> {
    let gauge = prometheus::IntGauge::new("store_up", "unused").context("a gauge with a good name")?;
    Ok(Redis::open(store, Arc::new(StoreHealth::new(gauge))).await?)
}

/// Runs `work` for every instance, each on a thread with an event loop of its own, and waits for all.
///
/// # Errors
/// The first of the instances' errors.
pub(super) async fn on_instances<T, F>(work: impl Fn(usize) -> F + Send + Sync + 'static) -> anyhow::Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>>,
{
    let work = Arc::new(work);
    let mut ends = Vec::new();
    for number in 0..INSTANCES {
        let (sender, end) = oneshot::channel();
        let work = work.clone();
        let run = move || -> anyhow::Result<T> {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work(number))
        };
        // Nobody waits for the result any more if another instance has failed.
        std::thread::Builder::new().name(format!("instance-{number}")).spawn(move || drop(sender.send(run())))?;
        ends.push(end);
    }
    future::join_all(ends).await.into_iter().map(|end| end.context("an instance ended without a result")?).collect()
}
