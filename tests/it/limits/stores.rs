//! Both stores behind one face, and what the tests need to set them up.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use callgate::config::{Limit, OnFailure, Plan, RedisNode, RedisServers, RedisStore, RouteLimits};
use callgate::limits::{
    CALLS, Charge, DECIDE, Decision, DenyCache, LimitOutcome, LimitReport, LimitSubject, Limiter, MemoryLimiter, PAIR,
    RedisLimiter,
};
use callgate::store::{Redis, StoreHealth};
use prometheus::IntGauge;
use redis::Value;

use crate::support::redis::RedisServer;

/// The version of all records in these tests.
pub(super) const VERSION: u64 = 7;

/// A plan of pairs of count and window in ms.
pub(super) fn plan(limits: &[(u32, u32)]) -> Plan {
    Plan { name: "test".into(), limits: named(limits), ..Plan::default() }
}

/// Limits that a route has of its own, likewise.
pub(super) fn route(name: &str, limits: &[(u32, u32)]) -> RouteLimits {
    RouteLimits { route: name.into(), limits: named(limits) }
}

fn named(limits: &[(u32, u32)]) -> Box<[Limit]> {
    let limit = |&(count, window_ms): &(u32, u32)| Limit {
        name: format!("{window_ms}ms").into(),
        count,
        window_ms: window_ms.try_into().unwrap(),
    };
    limits.iter().map(limit).collect()
}

/// This process's Unix time in ms.
pub(super) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A deadline for commands that a busy machine can keep: the longest that a configuration may have.
const AMPLE: Duration = Duration::from_secs(10);

/// A connection with an ample deadline.
pub(super) async fn connect(server: &RedisServer, on_failure: OnFailure) -> Redis {
    connect_within(&server.url(), on_failure, AMPLE).await
}

/// The same with another one.
pub(super) async fn connect_within(url: &str, on_failure: OnFailure, deadline: Duration) -> Redis {
    let (host, port) = url.trim_start_matches("redis://").split_once(':').unwrap();
    let node = RedisNode { host: host.into(), port: port.parse().unwrap() };
    let config = RedisStore {
        servers: RedisServers::Single(node),
        login: None,
        database: 0,
        tls: None,
        namespace: "cg".into(),
        deadline,
        connect_timeout: AMPLE,
        on_failure,
    };
    let health = Arc::new(StoreHealth::new(IntGauge::new("store_up", "test").unwrap()));
    let redis = Redis::open(&config, health).await.unwrap();
    assert!(redis.is_up());
    redis
}

/// One command, its words separated by blanks.
pub(super) async fn say(redis: &Redis, words: &str) -> Value {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    for word in words {
        command.arg(word);
    }
    redis.call(&command).await.unwrap()
}

/// Makes a record of [`VERSION`].
pub(super) async fn issue(redis: &Redis, token_id: &str) {
    say(redis, &format!("HSET cg:{{{token_id}}}:token version {VERSION}")).await;
}

/// An instance of the gateway as far as limits go: its own connection, deny cache and local limiter.
pub(super) async fn instance(server: &RedisServer, on_failure: OnFailure) -> (Limiter, Redis) {
    instance_within(&server.url(), on_failure, AMPLE).await
}

/// The same with a deadline for its commands.
pub(super) async fn instance_within(url: &str, on_failure: OnFailure, deadline: Duration) -> (Limiter, Redis) {
    let redis = connect_within(url, on_failure, deadline).await;
    let local = Arc::new(MemoryLimiter::new(1_000));
    let denials = Arc::new(DenyCache::new(1_000));
    (Limiter::Redis(RedisLimiter::new(redis.clone(), on_failure, local, denials, Arc::default())), redis)
}

/// A decision on one request of a token of [`VERSION`].
pub(super) async fn decide(limiter: &Limiter, token_id: &str, plan: &Plan) -> Decision {
    let subject = LimitSubject { token_id, version: VERSION };
    match limiter.decide(&subject, plan, 1, unix_ms(), &|| true).await.unwrap() {
        LimitOutcome::Decided(decision, _) => decision,
        LimitOutcome::Stale => panic!("{token_id} is stale"),
    }
}

/// The scripts as they ship, except that their clock is read from the token's record.
pub(super) fn with_set_clock(limiter: RedisLimiter) -> RedisLimiter {
    let shipped = "call('TIME')";
    for (script, places) in [(DECIDE, 1), (CALLS, 1), (PAIR, 2)] {
        assert_eq!(script.matches(shipped).count(), places, "the script asks for the time in so many places");
    }
    let clocked =
        |script: &str, key| &*script.replace(shipped, &format!("call('HMGET', {key}, 'seconds', 'micros')")).leak();
    let (decide, pair) = (clocked(DECIDE, "KEYS[1]"), clocked(PAIR, "KEYS[1]"));
    let calls = clocked(CALLS, "(KEYS[1]:gsub('calls$', 'token'))");
    limiter.with_scripts(decide, pair, calls)
}

/// A store whose clock is set by hand.
pub(super) enum Subject {
    Memory(Limiter),
    Redis { limiter: Limiter, redis: Redis, denials: Arc<DenyCache>, server: Arc<RedisServer> },
}

impl Subject {
    pub(super) fn memory() -> Self {
        Self::Memory(Limiter::Memory(Arc::new(MemoryLimiter::new(1_000_000))))
    }

    /// The script as it ships, except that its clock is read from the token's record.
    pub(super) async fn redis() -> Self {
        Self::redis_on(Arc::new(RedisServer::start())).await
    }

    /// Another instance with the same Redis.
    pub(super) async fn beside(&self) -> Self {
        match self {
            Self::Redis { server, .. } => Self::redis_on(server.clone()).await,
            Self::Memory(_) => panic!("it is alone"),
        }
    }

    async fn redis_on(server: Arc<RedisServer>) -> Self {
        let redis = connect(&server, OnFailure::Deny).await;
        let denials = Arc::new(DenyCache::new(64));
        let local = Arc::new(MemoryLimiter::new(64));
        let limiter = RedisLimiter::new(redis.clone(), OnFailure::Deny, local, denials.clone(), Arc::default());
        let limiter = with_set_clock(limiter);
        Self::Redis { limiter: Limiter::Redis(limiter), redis, denials, server }
    }

    /// Decides at `clock_ms`.
    pub(super) async fn decide<'a>(
        &self,
        token_id: &str,
        plan: &Plan,
        charge: impl Into<Charge<'a>>,
        clock_ms: i64,
    ) -> Decision {
        let subject = LimitSubject { token_id, version: VERSION };
        let decide = self.limiter().decide(&subject, plan, charge, clock_ms as u64, &|| true);
        let ((), outcome) = tokio::join!(self.set_clock(token_id, clock_ms), decide);
        match outcome {
            Ok(LimitOutcome::Decided(decision, _)) => decision,
            Ok(LimitOutcome::Stale) => panic!("{token_id} is stale"),
            Err(error) => panic!("{error}"),
        }
    }

    /// Looks at `clock_ms`.
    pub(super) async fn peek(
        &self,
        token_id: &str,
        plan: &Plan,
        routes: &[&RouteLimits],
        clock_ms: i64,
    ) -> LimitReport {
        let subject = LimitSubject { token_id, version: VERSION };
        let peek = self.limiter().peek(&subject, plan, routes, clock_ms as u64);
        let ((), report) = tokio::join!(self.set_clock(token_id, clock_ms), peek);
        report.unwrap().expect("the version is right")
    }

    pub(super) fn limiter(&self) -> &Limiter {
        match self {
            Self::Memory(limiter) | Self::Redis { limiter, .. } => limiter,
        }
    }

    /// Sets the clock of what comes next on this connection.
    async fn set_clock(&self, token_id: &str, clock_ms: i64) {
        let Self::Redis { redis, denials, .. } = self else { return };
        // It measures real time.
        denials.forget(token_id);
        set_clock(redis, token_id, clock_ms).await;
    }
}

/// Sets the clock of [`with_set_clock`] for one token.
pub(super) async fn set_clock(redis: &Redis, token_id: &str, clock_ms: i64) {
    let micros = clock_ms % 1000 * 1000 + i64::from(fastrand::u16(..1000));
    let mut set_clock = redis::cmd("HSET");
    set_clock.arg(format!("cg:{{{token_id}}}:token")).arg("version").arg(VERSION);
    set_clock.arg("seconds").arg(clock_ms / 1000).arg("micros").arg(micros);
    redis.call(&set_clock).await.unwrap();
}

/// How often a command was called since the statistics were reset.
pub(super) async fn calls_of(redis: &Redis, command: &str) -> u64 {
    let text = match say(redis, "INFO commandstats").await {
        Value::BulkString(bytes) => String::from_utf8(bytes).unwrap(),
        Value::VerbatimString { text, .. } => text,
        other => panic!("{other:?}"),
    };
    let start = format!("cmdstat_{command}:calls=");
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}
