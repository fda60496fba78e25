//! What one decision costs: in memory, through Redis, and Redis itself, compared with other ways to limit.
//!
//! `cargo bench --bench decision` runs all; `-- memory`, `-- redis/`, `-- compare` and `-- footprint` one part each. It starts its
//! own redis-server.

#[path = "decision/compare.rs"]
mod compare;
#[path = "decision/footprint.rs"]
mod footprint;
#[path = "../tests/it/support/redis.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the tests")]
mod server;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use callgate::config::{Limit, OnFailure, Plan, RedisNode, RedisServers, RedisStore};
use callgate::limits::{DenyCache, LimitSubject, Limiter, MemoryLimiter, RedisLimiter};
use callgate::store::{Redis, StoreHealth};
use criterion::{BatchSize, Criterion};

use server::RedisServer;

fn plan(limits: &[(u32, u32)]) -> Plan {
    let limit = |&(count, window_ms): &(u32, u32)| Limit {
        name: format!("{window_ms}ms").into(),
        count,
        window_ms: window_ms.try_into().expect("no window is empty"),
    };
    Plan { name: "bench".into(), limits: limits.iter().map(limit).collect(), ..Plan::default() }
}

fn tokens(count: u32) -> Vec<String> {
    (0..count).map(|i| format!("{i:012}")).collect()
}

fn memory(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memory");
    let tokens = tokens(1_000);
    let mut turn = 0;
    let mut next = || {
        turn = (turn + 7) % tokens.len();
        &*tokens[turn]
    };
    // Each of the 1,000 tokens comes every 4 s, so that each time an admission leaves the minute and one the hour.
    let steady = plan(&[(60, 60_000), (1_000, 3_600_000)]);
    let limiter = MemoryLimiter::new(1_000_000);
    let mut now_ms = 1_700_000_000_000;
    group.bench_function("warm, both windows sliding", |bench| {
        bench.iter(|| {
            now_ms += 4;
            black_box(limiter.decide(next(), &steady, 1, now_ms).reported())
        });
    });
    let limiter = MemoryLimiter::new(1_000_000);
    let roomy = plan(&[(1_000_000, 60_000), (1_000_000, 3_600_000)]);
    group.bench_function("warm, nothing leaves", |bench| {
        bench.iter(|| black_box(limiter.decide(next(), &roomy, 1, 1_700_000_000_000).reported()));
    });
    let limiter = MemoryLimiter::new(1_000_000);
    let tight = plan(&[(3, 60_000), (1_000, 3_600_000)]);
    for token in &tokens {
        (0..3).for_each(|_| assert!(limiter.decide(token, &tight, 1, 1_700_000_000_000).admitted));
    }
    group.bench_function("denied", |bench| {
        bench.iter(|| black_box(limiter.decide(next(), &tight, 1, 1_700_000_000_000).reported()));
    });
    group.bench_function("new token", |bench| {
        let fresh = || (MemoryLimiter::new(1_000_000), 0u64);
        bench.iter_batched_ref(
            fresh,
            |(limiter, _)| {
                for token in &tokens[..64] {
                    black_box(limiter.decide(token, &steady, 1, 1_700_000_000_000));
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn through_redis(criterion: &mut Criterion) {
    let server = RedisServer::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let redis = runtime.block_on(open(&store(&server)));
    let tokens = tokens(1_000);
    runtime.block_on(async {
        for token in &tokens {
            let mut issue = redis::cmd("HSET");
            issue.arg(format!("cg:{{{token}}}:token")).arg("version").arg(7);
            redis.call(&issue).await.expect("an answer");
        }
    });
    let local = Arc::new(MemoryLimiter::new(1_000_000));
    let limiter = Limiter::Redis(RedisLimiter::new(
        redis,
        OnFailure::Local,
        local,
        Arc::new(DenyCache::new(10_000)),
        Arc::default(),
    ));
    let mut turn = 0;
    let mut next = || {
        turn = (turn + 7) % tokens.len();
        LimitSubject { token_id: &tokens[turn], version: 7 }
    };
    let roomy = plan(&[(1_000_000, 60_000), (1_000_000, 3_600_000)]);
    let tight = plan(&[(1, 60_000), (1_000, 3_600_000)]);
    let mut group = criterion.benchmark_group("redis");
    group.bench_function("one at a time", |bench| {
        bench.iter(|| runtime.block_on(limiter.decide(&next(), &roomy, 1, unix_ms(), &|| true)).expect("a decision"));
    });
    group.bench_function("64 at a time", |bench| {
        bench.iter_custom(|times| {
            let started = Instant::now();
            runtime.block_on(async {
                for _ in 0..times.div_ceil(64) {
                    let askers: Vec<_> = (0..64).map(|_| next()).collect();
                    let decisions = askers.iter().map(|asker| limiter.decide(asker, &roomy, 1, unix_ms(), &|| true));
                    futures_util::future::join_all(decisions).await;
                }
            });
            started.elapsed()
        });
    });
    group.bench_function("denied, from the deny cache", |bench| {
        bench.iter(|| runtime.block_on(limiter.decide(&next(), &tight, 1, unix_ms(), &|| true)).expect("a decision"));
    });
    group.finish();
}

fn store(server: &RedisServer) -> RedisStore {
    let node = RedisNode { host: "127.0.0.1".into(), port: server.port() };
    RedisStore {
        servers: RedisServers::Single(node),
        login: None,
        database: 0,
        tls: None,
        namespace: "cg".into(),
        deadline: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(5),
        on_failure: OnFailure::Local,
    }
}

async fn open(store: &RedisStore) -> Redis {
    let gauge = prometheus::IntGauge::new("store_up", "whether Redis answers").expect("a valid name");
    Redis::open(store, Arc::new(StoreHealth::new(gauge))).await.expect("a valid URL")
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wants =
        |part: &str| words.is_empty() || words.iter().any(|word| part.starts_with(word) || word.starts_with(part));
    let mut criterion = Criterion::default().configure_from_args();
    if wants("memory") {
        memory(&mut criterion);
    }
    if wants("redis") {
        through_redis(&mut criterion);
    }
    criterion.final_summary();
    if std::env::args().any(|word| word == "--test") {
        return;
    }
    if wants("compare") {
        compare::run();
    }
    if wants("footprint") {
        footprint::run();
    }
}
