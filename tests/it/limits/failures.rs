//! Decisions while Redis has lost its scripts or records, hangs, or is down.

use std::time::{Duration, Instant};

use callgate::config::OnFailure;
use callgate::limits::{LimitOutcome, LimitSubject, Source, Unavailable};

use super::stores::{VERSION, decide, instance, instance_within, issue, plan, say, unix_ms};
use crate::support::eventually;
use crate::support::redis::RedisServer;

#[tokio::test]
async fn a_flushed_script_is_loaded_again() {
    let server = RedisServer::start();
    let (limiter, redis) = instance(&server, OnFailure::Deny).await;
    issue(&redis, "t").await;
    let plan = plan(&[(60, 60_000)]);
    for used in 1..4 {
        say(&redis, "SCRIPT FLUSH").await;
        let decision = decide(&limiter, "t", &plan).await;
        assert_eq!((decision.source, decision.windows()[0].used), (Source::Redis, used));
    }
}

#[tokio::test]
async fn a_stale_or_missing_record_counts_nothing() {
    let server = RedisServer::start();
    let (limiter, redis) = instance(&server, OnFailure::Local).await;
    issue(&redis, "t").await;
    let limited = plan(&[(60, 60_000)]);
    let unlimited = plan(&[]);
    let ask = |token_id, version, plan| {
        let limiter = &limiter;
        async move { limiter.decide(&LimitSubject { token_id, version }, plan, 1, unix_ms(), &|| true).await.unwrap() }
    };
    for plan in [&limited, &unlimited] {
        assert!(matches!(ask("t", VERSION - 1, plan).await, LimitOutcome::Stale));
        assert!(matches!(ask("t", VERSION + 1, plan).await, LimitOutcome::Stale));
        assert!(matches!(ask("t", 70, plan).await, LimitOutcome::Stale));
        assert!(matches!(ask("nobody", VERSION, plan).await, LimitOutcome::Stale));
    }
    assert_eq!(say(&redis, "KEYS *").await, redis::Value::Array(vec![redis::Value::BulkString("cg:{t}:token".into())]));
    let decision = decide(&limiter, "t", &unlimited).await;
    assert!(decision.admitted && decision.windows().is_empty() && decision.source == Source::Redis);
    assert_eq!(decide(&limiter, "t", &limited).await.windows()[0].used, 1);
    say(&redis, "DEL cg:{t}:token").await;
    assert!(matches!(ask("t", VERSION, &limited).await, LimitOutcome::Stale));
}

#[tokio::test]
async fn a_cached_denial_does_not_hide_a_revocation() {
    let server = RedisServer::start();
    let (limiter, redis) = instance(&server, OnFailure::Deny).await;
    issue(&redis, "t").await;
    let plan = plan(&[(1, 60_000)]);
    assert!(decide(&limiter, "t", &plan).await.admitted);
    assert!(!decide(&limiter, "t", &plan).await.admitted);
    assert_eq!(decide(&limiter, "t", &plan).await.source, Source::DenyCache);
    say(&redis, "HSET cg:{t}:token version 8").await;
    // An instance that read the record again asks with the new version, and the log still counts.
    let Ok(LimitOutcome::Decided(decision, _)) =
        limiter.decide(&LimitSubject { token_id: "t", version: 8 }, &plan, 1, unix_ms(), &|| true).await
    else {
        panic!("not decided")
    };
    assert_eq!((decision.admitted, decision.source), (false, Source::Redis));
}

#[tokio::test]
async fn the_local_limiter_continues_with_the_counts_of_redis() {
    let mut server = RedisServer::start();
    let (limiter, redis) = instance(&server, OnFailure::Local).await;
    issue(&redis, "t").await;
    let plan = plan(&[(60, 60_000), (1_000, 3_600_000)]);
    for _ in 0..40 {
        assert_eq!(decide(&limiter, "t", &plan).await.source, Source::Redis);
    }
    server.kill();
    for used in 41..=60 {
        let decision = decide(&limiter, "t", &plan).await;
        assert_eq!((decision.admitted, decision.source), (true, Source::Local));
        assert_eq!((decision.windows()[0].used, decision.windows()[1].used), (used, used));
    }
    let refused = decide(&limiter, "t", &plan).await;
    assert_eq!((refused.admitted, refused.source), (false, Source::Local));

    server.restart();
    eventually("a new connection", async || redis.is_up().then_some(())).await;
    issue(&redis, "t").await;
    assert_eq!(decide(&limiter, "t", &plan).await.source, Source::Redis);
}

#[tokio::test]
async fn a_hanging_redis_delays_only_a_few_decisions() {
    let server = RedisServer::start();
    let deadline = Duration::from_secs(2);
    let (limiter, redis) = instance_within(&server.url(), OnFailure::Local, deadline).await;
    issue(&redis, "t").await;
    let plan = plan(&[(600, 60_000)]);
    decide(&limiter, "t", &plan).await;
    server.pause();
    let mut waited = 0;
    for _ in 0..100 {
        let asked = Instant::now();
        let decision = decide(&limiter, "t", &plan).await;
        waited += usize::from(asked.elapsed() >= deadline);
        assert_eq!((decision.admitted, decision.source), (true, Source::Local));
    }
    // Three miss their deadline and open the circuit; without it all hundred would.
    assert!(waited <= 10, "{waited} of a hundred decisions waited for Redis");
    server.resume();
    eventually("Redis to decide again", async || {
        (decide(&limiter, "t", &plan).await.source == Source::Redis).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_failure_policy_denies_or_allows_every_request() {
    let mut server = RedisServer::start();
    let (deny, redis) = instance(&server, OnFailure::Deny).await;
    let (allow, _) = instance(&server, OnFailure::Allow).await;
    issue(&redis, "t").await;
    let plan = plan(&[(3, 60_000)]);
    assert!(decide(&deny, "t", &plan).await.admitted);
    assert!(decide(&allow, "t", &plan).await.admitted);
    server.kill();
    let subject = LimitSubject { token_id: "t", version: VERSION };
    for _ in 0..5 {
        assert!(matches!(deny.decide(&subject, &plan, 1, unix_ms(), &|| true).await, Err(Unavailable)));
        let decision = decide(&allow, "t", &plan).await;
        assert!(decision.admitted && decision.source == Source::Local);
        assert!(decision.windows().is_empty() && decision.reported().is_none());
    }
}

#[tokio::test]
async fn a_log_of_another_type_is_an_outage_for_its_token_only() {
    let server = RedisServer::start();
    let (limiter, redis) = instance(&server, OnFailure::Local).await;
    issue(&redis, "t").await;
    issue(&redis, "u").await;
    say(&redis, "LPUSH cg:{t}:log x").await;
    let plan = plan(&[(60, 60_000)]);
    assert_eq!(decide(&limiter, "t", &plan).await.source, Source::Local);
    assert_eq!(decide(&limiter, "u", &plan).await.source, Source::Redis);
}

/// How many scripts Redis was asked to run so far.
fn scripts_run(server: &RedisServer) -> u64 {
    let stats = server.say::<String>(&["INFO", "commandstats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap();
    line.split(',').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_redis_out_of_memory_is_bypassed_and_gets_all_admissions_later() {
    let server = RedisServer::start();
    let (limiter, redis) = instance(&server, OnFailure::Local).await;
    issue(&redis, "t").await;
    let plan = plan(&[(60, 3_600_000)]);
    for _ in 0..20 {
        assert_eq!(decide(&limiter, "t", &plan).await.source, Source::Redis);
    }
    server.say::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let (before, began) = (scripts_run(&server), Instant::now());
    for used in 21..=60 {
        let decision = decide(&limiter, "t", &plan).await;
        assert_eq!((decision.admitted, decision.source, decision.windows()[0].used), (true, Source::Local, used));
    }
    for _ in 0..60 {
        assert!(!decide(&limiter, "t", &plan).await.admitted);
    }
    // One decision, and a merge a second, which takes two.
    let asked = scripts_run(&server) - before;
    assert!(asked <= 10 + 2 * began.elapsed().as_secs(), "{asked} in {:?}", began.elapsed());
    server.say::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    let refusal = eventually("Redis to decide again", async || {
        let decision = decide(&limiter, "t", &plan).await;
        (decision.source == Source::Redis).then_some(decision)
    });
    let refusal = refusal.await;
    assert_eq!((refusal.admitted, refusal.windows()[0].used), (false, 60));
}
