//! Several instances, a real Redis, real time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use callgate::config::{OnFailure, Plan};
use callgate::limits::{Decision, DenyCache, LimitOutcome, LimitSubject, Limiter, MemoryLimiter, RedisLimiter, Source};

use super::stores::{VERSION, calls_of, connect, decide, instance, issue, plan, say, unix_ms};
use crate::support::eventually;
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

const WINDOW: Duration = Duration::from_secs(2);
const TICKS: Duration = Duration::from_millis(3);

#[tokio::test]
async fn retry_after_is_sufficient_and_no_longer_than_needed() {
    let server = RedisServer::start();
    let (limiter, redis) = instance(&server, OnFailure::Deny).await;
    let memory = Limiter::Memory(MemoryLimiter::new(1_000).into());
    issue(&redis, "t").await;
    let plan = plan(&[(3, 2_000), (100, 60_000)]);
    for limiter in [&limiter, &memory] {
        let before = Instant::now();
        for _ in 0..3 {
            assert!(decide(limiter, "t", &plan).await.admitted);
        }
        let after = Instant::now();
        // The first slot is free again at some moment between these two; the limiter's clock ticks in milliseconds.
        let (earliest, latest) = (before + WINDOW - TICKS, after + WINDOW + TICKS);
        let seconds = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64().ceil() as u64;
        loop {
            let asked = Instant::now();
            let refused = decide(limiter, "t", &plan).await;
            if refused.admitted {
                assert!(Instant::now() >= earliest, "admitted early");
                break;
            }
            let reported = refused.reported().unwrap();
            assert_eq!((reported.index, reported.remaining), (0, 0));
            assert!(asked < latest, "refused although the window is over");
            let right = seconds(Instant::now(), earliest).max(1)..=seconds(asked, latest).max(1);
            assert!(right.contains(&reported.retry_after_s), "{} is not in {right:?}", reported.retry_after_s);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let refused = eventually("another refusal", async || {
            Some(decide(limiter, "t", &plan).await).filter(|decision| !decision.admitted)
        })
        .await;
        let wait = refused.reported().unwrap().retry_after_s;
        tokio::time::sleep(Duration::from_secs(wait)).await;
        assert!(decide(limiter, "t", &plan).await.admitted, "waiting as told was not enough");
    }
}

#[tokio::test]
async fn a_flood_on_a_limited_token_is_answered_from_memory() {
    let server = RedisServer::start();
    let (limiter, redis) = instance(&server, OnFailure::Deny).await;
    issue(&redis, "t").await;
    let raised = plan(&[(4, 60_000), (100, 3_600_000)]);
    let plan = plan(&[(3, 60_000), (100, 3_600_000)]);
    let mut last = None;
    for _ in 0..3 {
        last = Some(decide(&limiter, "t", &plan).await);
    }
    let last = last.filter(|last| last.admitted && last.source == Source::Redis).unwrap();
    // Nothing is left after the last slot: this instance knows it without asking Redis.
    for _ in 0..500 {
        let again = decide(&limiter, "t", &plan).await;
        assert!(!again.admitted);
        assert_eq!(again.windows(), last.windows());
        assert_eq!(again.reported().unwrap().reset_s, last.reported().unwrap().reset_s);
    }
    assert_eq!(decide(&limiter, "t", &plan).await.source, Source::DenyCache);
    // Another plan is another question.
    assert!(decide(&limiter, "t", &raised).await.admitted);
}

/// Floods a token over 64 connections and two workers of one process, for some seconds and until so many requests were admitted; says
/// how many were, how many calls that took, and how many seconds.
async fn flood(server: &RedisServer, plan: &Plan, enough: u64) -> (u64, u64, u64) {
    let (local, denials) = (Arc::new(MemoryLimiter::new(64)), Arc::new(DenyCache::new(64)));
    let mut workers = Vec::new();
    for _ in 0..2 {
        let redis = connect(server, OnFailure::Deny).await;
        let limiter = RedisLimiter::new(redis, OnFailure::Deny, local.clone(), denials.clone(), Arc::default());
        workers.push(Arc::new(Limiter::Redis(limiter)));
    }
    let redis = connect(server, OnFailure::Deny).await;
    issue(&redis, "t").await;
    while decide(&workers[0], "t", plan).await.admitted {}
    say(&redis, "CONFIG RESETSTAT").await;
    let (began, all) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let connections = (0..64).map(|connection| {
        let (limiter, plan, all) = (workers[connection % 2].clone(), plan.clone(), all.clone());
        tokio::spawn(async move {
            while began.elapsed() < Duration::from_millis(3_500) || all.load(Ordering::Relaxed) < enough {
                all.fetch_add(decide(&limiter, "t", &plan).await.admitted.into(), Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        })
    });
    futures_util::future::join_all(connections).await.into_iter().for_each(Result::unwrap);
    (all.load(Ordering::Relaxed), calls_of(&redis, "evalsha").await, began.elapsed().as_secs())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_over_many_connections_costs_redis_one_call_a_second() {
    let server = RedisServer::start();
    // The hour's oldest leave all the time, so that its numbers change all the time.
    let plan = plan(&[(20, 60_000), (100, 61_000)]);
    let (admitted, calls, seconds) = flood(&server, &plan, 0).await;
    assert_eq!(admitted, 0);
    assert!((1..=seconds + 1).contains(&calls), "Redis was asked {calls} times in {seconds} s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_across_window_ends_costs_redis_little_more_than_its_admissions() {
    let server = RedisServer::start();
    let (admitted, calls, seconds) = flood(&server, &plan(&[(5, 1_000)]), 15).await;
    assert!((15..=5 * (seconds + 1)).contains(&admitted), "{admitted} in {seconds} s");
    // On a slow machine each admission leaves its window at a moment of its own, and one more request asks whether another does.
    assert!(calls <= 2 * admitted + seconds + 1, "Redis was asked {calls} times for {admitted} admissions");
}

#[tokio::test]
async fn a_denial_from_memory_is_exact_for_the_denying_window() {
    let server = RedisServer::start();
    let (limiter, redis) = instance(&server, OnFailure::Deny).await;
    // Each step has seconds to spare. On a machine that was slower still, the windows have moved on: once more.
    for token in ["t", "u", "v", "w"] {
        issue(&redis, token).await;
        if denies_exactly(&limiter, token).await {
            return;
        }
    }
    panic!("the machine is too slow for windows of seconds");
}

/// Whether the machine was quick enough; then the denials from memory were exact.
async fn denies_exactly(limiter: &Limiter, token: &str) -> bool {
    let plan = plan(&[(3, 8_000), (100, 12_000)]);
    let started = Instant::now();
    let after = |ms| started + Duration::from_millis(ms);
    assert!(decide(limiter, token, &plan).await.admitted);
    tokio::time::sleep_until(after(8_050).into()).await;
    for _ in 0..3 {
        assert!(decide(limiter, token, &plan).await.admitted);
    }
    let refused = decide(limiter, token, &plan).await;
    if Instant::now() > after(11_900) {
        return false;
    }
    let used = |decision: &Decision| decision.windows().iter().map(|window| window.used).collect::<Vec<_>>();
    assert_eq!((refused.admitted, used(&refused)), (false, vec![3, 4]));
    // The first admission leaves the longer window, which is reported a second later; the shorter one is as full as before.
    tokio::time::sleep_until(after(12_100).into()).await;
    let again = decide(limiter, token, &plan).await;
    tokio::time::sleep_until(after(13_500).into()).await;
    let last = decide(limiter, token, &plan).await;
    if Instant::now() > after(15_900) {
        return false;
    }
    assert!(!again.admitted);
    assert_eq!(again.windows()[0], refused.windows()[0]);
    assert_eq!(used(&last), [3, 3]);
    true
}

#[tokio::test]
async fn a_reset_or_a_stale_record_clears_cached_denials() {
    let server = RedisServer::start();
    let (limiter, redis) = instance(&server, OnFailure::Deny).await;
    issue(&redis, "t").await;
    let once = plan(&[(1, 60_000)]);
    let use_up = || async {
        while decide(&limiter, "t", &once).await.admitted {}
        assert_eq!(decide(&limiter, "t", &once).await.source, Source::DenyCache);
    };
    // Its log is cleared.
    use_up().await;
    limiter.reset("t", &[]).await.unwrap();
    assert!(decide(&limiter, "t", &once).await.admitted);
    // Its record turns out to have been changed elsewhere: the old one is not answered for any more.
    use_up().await;
    say(&redis, "HSET cg:{t}:token version 8").await;
    let ask = async |plan: &Plan| {
        limiter.decide(&LimitSubject { token_id: "t", version: VERSION }, plan, 1, unix_ms(), &|| true).await.unwrap()
    };
    assert!(matches!(ask(&once).await, LimitOutcome::Decided(..)), "not known yet");
    assert!(matches!(ask(&plan(&[(9, 60_000)])).await, LimitOutcome::Stale));
    assert!(matches!(ask(&once).await, LimitOutcome::Stale));
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
