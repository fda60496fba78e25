//! An instance of the gateway as far as limits go, on a thread of its own, with its own connections and memory.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::future;
use tokio::sync::oneshot;

use crate::config::{Plan, RedisStore};
use crate::limits::{Decision, DenyCache, LimitOutcome, LimitSubject, Limiter, MemoryLimiter, Moment, RedisLimiter};
use crate::store::Redis;

pub(super) const INSTANCES: usize = 4;
/// The version of every token record in the test.
pub(super) const RECORD_VERSION: u64 = 1;

/// The pause after a decision that got no answer.
const PAUSE: Duration = Duration::from_millis(10);
/// More tokens than the test uses.
const MAX_TOKENS: usize = 4_096;

pub(super) struct TestInstance {
    pub(super) number: usize,
    pub(super) redis: Redis,
    limiter: Limiter,
    denials: Arc<DenyCache>,
}

impl TestInstance {
    pub(super) async fn open(store: &RedisStore, number: usize) -> anyhow::Result<Self> {
        let redis = Redis::open(store, Arc::default()).await?;
        let denials = Arc::new(DenyCache::new(MAX_TOKENS));
        let local = Arc::new(MemoryLimiter::new(MAX_TOKENS));
        let limiter = RedisLimiter::new(redis.clone(), store.on_failure, local, denials.clone(), Arc::default());
        Ok(Self { number, redis, limiter: Limiter::Redis(limiter), denials })
    }

    /// Decides on one request, without the deny cache. Returns `None`, after a pause, if the limiter failed.
    pub(super) async fn decide(&self, token_id: &str, plan: &Plan) -> Option<Decision> {
        self.denials.forget(token_id);
        let subject = LimitSubject { token_id, version: RECORD_VERSION };
        match self.limiter.decide(&subject, plan, 1, Moment::now(), &|| true).await {
            Ok(LimitOutcome::Decided(decision, _)) => Some(decision),
            Ok(LimitOutcome::Stale) | Err(_) => {
                tokio::time::sleep(PAUSE).await;
                None
            }
        }
    }
}

/// Runs `work` on `deciders` tasks of each of so many instances, and returns all results.
///
/// # Errors
/// The first error of an instance.
pub(super) async fn on_instances<T, W>(
    store: &RedisStore,
    instances: usize,
    deciders: usize,
    work: W,
) -> anyhow::Result<Vec<T>>
where
    T: Send + 'static,
    W: AsyncFn(&TestInstance) -> anyhow::Result<T> + Send + Sync + 'static,
{
    let work = Arc::new(work);
    let mut results = Vec::new();
    for number in 0..instances {
        let (sender, result) = oneshot::channel();
        let (store, work) = (store.clone(), work.clone());
        let run = move || -> anyhow::Result<Vec<T>> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let instance = TestInstance::open(&store, number).await?;
                future::try_join_all((0..deciders).map(|_| work(&instance))).await
            })
        };
        std::thread::Builder::new().name(format!("instance-{number}")).spawn(move || drop(sender.send(run())))?;
        results.push(result);
    }
    let mut all = Vec::new();
    for result in future::join_all(results).await {
        all.extend(result.context("an instance panicked")??);
    }
    Ok(all)
}
