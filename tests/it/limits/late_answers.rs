//! An answer of Redis that comes when the request has been decided already tells what it counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use callgate::config::OnFailure;
use callgate::limits::{Charge, DenyCache, LimitSubject, Limiter, MemoryLimiter, PendingMerges, RedisLimiter, Source};

use super::stores::{VERSION, connect_within, decide, instance, instance_within, issue, plan, route, unix_ms};
use crate::support::eventually;
use crate::support::redis::RedisServer;

/// Redis is stopped for longer than that.
const DEADLINE: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_stall_of_redis_counts_each_admission_once() {
    let server = RedisServer::start();
    let (pending, local) = (Arc::<PendingMerges>::default(), Arc::new(MemoryLimiter::new(64)));
    let redis = connect_within(&server.url(), OnFailure::Local, DEADLINE).await;
    let denials = Arc::new(DenyCache::new(64));
    let limiter = RedisLimiter::new(redis.clone(), OnFailure::Local, local, denials, pending.clone());
    let limiter = Arc::new(Limiter::Redis(limiter));
    let background = tokio::spawn({
        let limiter = limiter.clone();
        async move { limiter.run().await }
    });
    issue(&redis, "t").await;
    let plan = plan(&[(1_000, 600_000)]);
    let mut admitted = 0;
    for stall in 0..3 {
        assert!(
            eventually("Redis to decide", async || {
                let decision = decide(&limiter, "t", &plan).await;
                admitted += 1;
                (decision.source == Source::Redis).then_some(decision.admitted)
            })
            .await
        );
        server.pause();
        let decisions = futures_util::future::join_all((0..8).map(|_| decide(&limiter, "t", &plan))).await;
        assert!(decisions.iter().all(|decision| decision.admitted && decision.source == Source::Local));
        admitted += 8;
        assert!(pending.len() >= 8, "they are in doubt");
        server.resume();
        eventually("nothing to be in doubt", async || pending.is_empty().then_some(())).await;
        let (witness, _) = instance(&server, OnFailure::Deny).await;
        let used = decide(&witness, "t", &plan).await.windows()[0].used;
        admitted += 1;
        assert_eq!(used, admitted, "after stall {stall}");
    }
    background.abort();
}

#[tokio::test]
async fn a_request_that_was_refused_for_want_of_an_answer_is_not_counted() {
    let server = RedisServer::start();
    let (limiter, redis) = instance_within(&server.url(), OnFailure::Deny, DEADLINE).await;
    let (witness, _) = instance(&server, OnFailure::Deny).await;
    issue(&redis, "t").await;
    let (plan, own) = (plan(&[(1_000, 600_000), (2_000, 3_600_000)]), route("own", &[(100, 60_000)]));
    let subject = LimitSubject { token_id: "t", version: VERSION };
    for _ in 0..3 {
        assert!(decide(&witness, "t", &plan).await.admitted);
    }
    let counted = async || {
        let report = witness.peek(&subject, &plan, &[&own], unix_ms()).await.unwrap().unwrap();
        report.windows.iter().map(|window| window.used).collect::<Vec<_>>()
    };
    assert_eq!(counted().await, [3, 3, 0]);
    server.pause();
    for limits in [None, Some(&own)] {
        let charge = Charge { limits, ..4.into() };
        assert!(limiter.decide(&subject, &plan, charge, unix_ms(), &|| true).await.is_err());
    }
    server.resume();
    // Both were counted when Redis went on. The route's log, which had nothing else in it, is deleted.
    eventually("what was counted to be taken back", async || {
        (server.calls("del") > 0 && counted().await == [3, 3, 0]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_decision_waits_for_a_silent_redis_once() {
    const DEADLINE: Duration = Duration::from_secs(1);
    let mut server = RedisServer::start();
    let (limiter, redis) = instance_within(&server.url(), OnFailure::Local, DEADLINE).await;
    let plan = plan(&[(1_000, 600_000)]);
    issue(&redis, "t").await;
    server.kill();
    eventually("an admission that is to be merged", async || {
        (decide(&limiter, "t", &plan).await.source == Source::Local).then_some(())
    })
    .await;
    server.restart();
    eventually("Redis to be back", async || redis.is_up().then_some(())).await;
    server.pause();
    let first = decide(&limiter, "t", &plan);
    let second = async {
        // It finds that the first one is merging, and sees that fail.
        tokio::time::sleep(DEADLINE / 2).await;
        let asked = Instant::now();
        (decide(&limiter, "t", &plan).await, asked.elapsed())
    };
    let (first, (second, waited)) = tokio::join!(first, second);
    assert_eq!((first.source, second.source), (Source::Local, Source::Local));
    assert!(waited < DEADLINE, "{waited:?}");
}
