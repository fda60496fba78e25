//! Several instances, a real Redis, real time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use callgate::config::OnFailure;
use callgate::limits::{Limiter, MemoryLimiter, Source};

use super::stores::{calls_of, decide, instance, issue, plan, say, unix_ms};
use crate::support::redis::RedisServer;

#[tokio::test]
async fn instances_together_admit_exactly_the_limit() {
    let server = RedisServer::start();
    let plan = plan(&[(60, 60_000), (1_000, 3_600_000)]);
    let mut instances = Vec::new();
    for _ in 0..4 {
        instances.push(instance(&server, OnFailure::Deny).await);
    }
    issue(&instances[0].1, "t").await;
    let floods = instances.iter().flat_map(|(limiter, _)| {
        std::iter::repeat_with(|| async { decide(limiter, "t", &plan).await.admitted }).take(100)
    });
    let admitted = futures_util::future::join_all(floods).await.into_iter().filter(|admitted| *admitted).count();
    assert_eq!(admitted, 60);
}

#[tokio::test]
async fn workers_of_one_process_admit_exactly_the_limit_in_memory() {
    let memory = Arc::new(MemoryLimiter::new(1_000));
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let memory = memory.clone();
            std::thread::spawn(move || {
                let plan = plan(&[(60, 60_000), (1_000, 3_600_000)]);
                let now_ms = unix_ms();
                (0..500).filter(|_| memory.decide("t", &plan, 1, now_ms).admitted).count()
            })
        })
        .collect();
    let admitted: usize = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    assert_eq!(admitted, 60);
}

#[tokio::test]
async fn waiting_as_told_is_enough_and_no_more_than_needed() {
    let server = RedisServer::start();
    let (limiter, redis) = instance(&server, OnFailure::Deny).await;
    let memory = Limiter::Memory(MemoryLimiter::new(1_000).into());
    issue(&redis, "t").await;
    let plan = plan(&[(3, 2_000), (100, 60_000)]);
    for limiter in [&limiter, &memory] {
        for _ in 0..3 {
            assert!(decide(limiter, "t", &plan).await.admitted);
        }
        let refused = decide(limiter, "t", &plan).await;
        assert!(!refused.admitted);
        let told = refused.reported().unwrap();
        assert_eq!((told.index, told.remaining, told.retry_after_s), (0, 0, 2));
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let refused = decide(limiter, "t", &plan).await;
        assert!(!refused.admitted, "admitted half a second early");
        assert_eq!(refused.reported().unwrap().retry_after_s, 1);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(decide(limiter, "t", &plan).await.admitted);
    }
}

#[tokio::test]
async fn a_flood_on_a_used_up_token_is_answered_from_memory() {
    let server = RedisServer::start();
    let (limiter, redis) = instance(&server, OnFailure::Deny).await;
    issue(&redis, "t").await;
    let raised = plan(&[(4, 60_000), (100, 3_600_000)]);
    let plan = plan(&[(3, 60_000), (100, 3_600_000)]);
    for _ in 0..3 {
        assert_eq!(decide(&limiter, "t", &plan).await.source, Source::Redis);
    }
    let first = decide(&limiter, "t", &plan).await;
    assert_eq!((first.admitted, first.source), (false, Source::Redis));
    say(&redis, "CONFIG RESETSTAT").await;
    let started = Instant::now();
    for _ in 0..500 {
        let again = decide(&limiter, "t", &plan).await;
        assert!(!again.admitted);
        assert_eq!(again.windows(), first.windows());
        assert_eq!(again.reported().unwrap().reset_s, first.reported().unwrap().reset_s);
    }
    let asked = calls_of(&redis, "evalsha").await;
    assert!(asked <= 1 + started.elapsed().as_secs(), "Redis was asked {asked} times");
    // Another plan is another question.
    assert!(decide(&limiter, "t", &raised).await.admitted);
}

#[tokio::test]
async fn a_refusal_from_memory_tells_the_present_of_every_window() {
    let server = RedisServer::start();
    let (limiter, redis) = instance(&server, OnFailure::Deny).await;
    issue(&redis, "t").await;
    let plan = plan(&[(3, 2_000), (100, 2_500)]);
    let started = Instant::now();
    let until = |ms| tokio::time::sleep_until((started + Duration::from_millis(ms)).into());
    assert!(decide(&limiter, "t", &plan).await.admitted);
    until(2_050).await;
    for _ in 0..3 {
        assert!(decide(&limiter, "t", &plan).await.admitted);
    }
    for _ in 0..2 {
        let refused = decide(&limiter, "t", &plan).await;
        assert!(!refused.admitted);
        assert_eq!(refused.windows().iter().map(|window| window.used).collect::<Vec<_>>(), [3, 4]);
    }
    // The first admission has left the longer window, the shorter one is as full as before.
    until(2_600).await;
    let refused = decide(&limiter, "t", &plan).await;
    assert!(!refused.admitted);
    assert_eq!(refused.windows().iter().map(|window| window.used).collect::<Vec<_>>(), [3, 3]);
}

#[tokio::test]
async fn a_decision_is_one_round_trip() {
    let server = RedisServer::start();
    let (limiter, redis) = instance(&server, OnFailure::Local).await;
    issue(&redis, "t").await;
    let plan = plan(&[(60, 60_000), (1_000, 3_600_000)]);
    decide(&limiter, "t", &plan).await;
    say(&redis, "CONFIG RESETSTAT").await;
    for _ in 0..20 {
        decide(&limiter, "t", &plan).await;
    }
    assert_eq!(calls_of(&redis, "evalsha").await, 20);
    assert_eq!(calls_of(&redis, "eval").await + calls_of(&redis, "script").await, 0);
}
