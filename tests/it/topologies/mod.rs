//! Limits and tokens on every kind of Redis: one server with TLS or a login, a cluster, and a primary named by sentinels.

mod cluster;
mod elected;
mod single;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use callgate::config::{self, Config, Limit, OnFailure, Plan, RedisStore, Store};
use callgate::limits::{Decision, DenyCache, LimitOutcome, LimitSubject, Limiter, MemoryLimiter, RedisLimiter, Source};
use callgate::store::{Redis, StoreHealth};
use prometheus::IntGauge;

/// The version of every token's record.
const VERSION: u64 = 7;

/// A configuration whose `store.redis` is as told, with a deadline that a busy machine can keep.
fn config(redis: &str) -> Config {
    let text = format!(
        "tls: {{ certificates: [{{ cert: c.pem, key: k.pem }}] }}\n\
         store: {{ redis: {{ {redis}, deadline: 10s, connect_timeout: 3s, on_failure: deny }} }}\n\
         routes: [{{ path: /a, upstream: a }}]\n\
         upstreams: {{ a: {{ endpoints: [\"http://127.0.0.1:3000\"] }} }}\n"
    );
    config::parse(Path::new("callgate.yaml"), &text, &|_| None).unwrap_or_else(|problems| panic!("{problems}")).config
}

fn store(redis: &str) -> RedisStore {
    let Store::Redis(store) = config(redis).store else { panic!("not Redis") };
    *store
}

async fn open(store: &RedisStore) -> (Redis, Arc<StoreHealth>) {
    let health = Arc::new(StoreHealth::new(IntGauge::new("store_up", "test").unwrap()));
    (Redis::open(store, health.clone()).await.unwrap(), health)
}

/// The reason why a connection can't be had.
async fn trouble(redis: &str) -> String {
    let (redis, health) = open(&store(redis)).await;
    assert!(!redis.is_up());
    let trouble = health.trouble().unwrap();
    assert!(!trouble.contains("hunter2"), "{trouble}");
    trouble
}

/// An instance of the gateway as far as limits go.
async fn instance(store: &RedisStore) -> (Arc<Limiter>, Redis) {
    let (redis, health) = open(store).await;
    assert_eq!(health.trouble(), None);
    let limiter = RedisLimiter::new(
        redis.clone(),
        OnFailure::Deny,
        Arc::new(MemoryLimiter::new(1_000)),
        Arc::new(DenyCache::new(1_000)),
        Arc::default(),
    );
    (Arc::new(Limiter::Redis(limiter)), redis)
}

fn plan(count: u32) -> Plan {
    let limit = Limit { name: "hour".into(), count, window_ms: 3_600_000.try_into().unwrap() };
    Plan { name: "standard".into(), limits: [limit].into(), ..Plan::default() }
}

async fn say(redis: &Redis, words: &str) -> redis::Value {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    words.for_each(|word| _ = command.arg(word));
    redis.call(&command).await.unwrap()
}

/// Makes a token's record.
async fn issue(redis: &Redis, token_id: &str) {
    say(redis, &format!("HSET callgate:{{{token_id}}}:token version {VERSION}")).await;
}

/// A decision that Redis has made, or the deny cache from one.
async fn decide(limiter: &Limiter, token_id: &str, plan: &Plan) -> Decision {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    match limiter.decide(&LimitSubject { token_id, version: VERSION }, plan, 1, now_ms, &|| true).await {
        Ok(LimitOutcome::Decided(decision, _)) => {
            assert_ne!(decision.source, Source::Local);
            decision
        }
        Ok(LimitOutcome::Stale) => panic!("{token_id} is stale"),
        Err(error) => panic!("{token_id}: {error}"),
    }
}

/// How many of `attempts` at one time of each instance are admitted.
async fn admitted(limiters: &[Arc<Limiter>], token_id: &str, count: u32, attempts: usize) -> usize {
    let plan = plan(count);
    let all = limiters.iter().flat_map(|limiter| (0..attempts).map(|_| decide(limiter, token_id, &plan)));
    futures_util::future::join_all(all).await.iter().filter(|decision| decision.admitted).count()
}

/// Shorter than the deadline of one call: no call has waited for it.
const AT_ONCE: Duration = Duration::from_secs(9);
