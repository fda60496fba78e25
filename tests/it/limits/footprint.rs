//! The memory that a token's log takes in Redis, and for how long.

use callgate::config::OnFailure;
use callgate::limits::LimitSubject;
use callgate::store::Redis;
use redis::Value;

use super::stores::{Subject, VERSION, connect, decide, instance, issue, plan, say, unix_ms};
use crate::support::redis::RedisServer;

async fn number(redis: &Redis, words: &str) -> i64 {
    match say(redis, words).await {
        Value::Int(number) => number,
        other => panic!("{words}: {other:?}"),
    }
}

#[tokio::test]
async fn a_log_takes_four_bytes_an_admission_and_a_little() {
    let server = RedisServer::start();
    let (limiter, redis) = instance(&server, OnFailure::Deny).await;
    issue(&redis, "0123456789ab").await;
    let plan = plan(&[(6_000, 60_000), (100_000, 3_600_000)]);
    let mut measured = Vec::new();
    for admission in 1..=1_000 {
        assert!(decide(&limiter, "0123456789ab", &plan).await.admitted);
        if [1, 5, 60, 1_000].contains(&admission) {
            measured.push(number(&redis, "MEMORY USAGE cg:{0123456789ab}:log").await);
        }
    }
    println!("bytes after 1, 5, 60, 1,000 admissions: {measured:?}");
    for (bytes, bar) in measured.iter().zip([160, 160, 420, 4_400]) {
        assert!(*bytes <= bar, "{measured:?}");
    }
}

#[tokio::test]
async fn a_large_log_takes_no_more_per_admission() {
    let server = RedisServer::start();
    let (limiter, redis) = instance(&server, OnFailure::Deny).await;
    issue(&redis, "0123456789ab").await;
    let plan = plan(&[(200_000, 60_000), (1_000_000, 3_600_000)]);
    let asker = LimitSubject { token_id: "0123456789ab", version: VERSION };
    for _ in 0..100 {
        limiter.decide(&asker, &plan, 1_000, unix_ms(), &|| true).await.unwrap();
    }
    let bytes = number(&redis, "MEMORY USAGE cg:{0123456789ab}:log").await;
    println!("bytes after 100,000 admissions: {bytes}");
    assert!((400_000..=525_000).contains(&bytes), "{bytes}");
}

#[tokio::test]
async fn a_log_shrinks_when_its_token_calms_down() {
    let subject = Subject::redis().await;
    let Subject::Redis { redis, .. } = &subject else { unreachable!() };
    let plan = plan(&[(2_000, 10_000)]);
    for _ in 0..20 {
        subject.decide("t", &plan, 100, 1_000_000).await;
    }
    let busy = number(redis, "MEMORY USAGE cg:{t}:log").await;
    for second in 0..20 {
        subject.decide("t", &plan, 1, 1_020_000 + second * 1_000).await;
    }
    let calm = number(redis, "MEMORY USAGE cg:{t}:log").await;
    assert!(busy > 8_000 && calm < 400, "{busy} bytes, then {calm}");
}

#[tokio::test]
async fn a_log_expires_some_time_after_its_longest_window() {
    let server = RedisServer::start();
    let (limiter, redis) = instance(&server, OnFailure::Deny).await;
    issue(&redis, "t").await;
    for (window, ttl) in [(2_000, 62_000), (3_600_000, 4_500_000), (2_592_000_000, 3_240_000_000)] {
        let plan = plan(&[(100, window)]);
        for _ in 0..20 {
            assert!(decide(&limiter, "t", &plan).await.admitted);
        }
        let left = number(&redis, "PTTL cg:{t}:log").await;
        assert!((ttl - 10_000..=ttl).contains(&left), "{window}: {left}");
    }
}

/// However requests are spread, the log outlives its newest admission by the longest window.
#[tokio::test]
async fn a_slow_token_keeps_its_log() {
    let subject = Subject::redis().await;
    let Subject::Redis { redis, .. } = &subject else { unreachable!() };
    let plan = plan(&[(100, 600_000)]);
    let (mut clock, mut expires) = (1_700_000_000_000, 0);
    for _ in 0..400 {
        clock += fastrand::i64(1..200_000);
        say(redis, "PERSIST cg:{t}:log").await;
        subject.decide("t", &plan, 1, clock).await;
        let ttl = number(redis, "PTTL cg:{t}:log").await;
        if ttl > 0 {
            expires = clock + ttl;
        }
        assert!(expires > clock + 599_000, "gone {} ms after its newest admission", expires - clock);
    }
}

#[tokio::test]
async fn a_refusal_writes_nothing() {
    let server = RedisServer::start();
    let redis = connect(&server, OnFailure::Deny).await;
    issue(&redis, "t").await;
    let (first, _) = instance(&server, OnFailure::Deny).await;
    let plan = plan(&[(2, 60_000), (100, 3_600_000)]);
    for _ in 0..2 {
        assert!(decide(&first, "t", &plan).await.admitted);
    }
    let before = say(&redis, "GET cg:{t}:log").await;
    for _ in 0..5 {
        let (other, _) = instance(&server, OnFailure::Deny).await;
        assert!(!decide(&other, "t", &plan).await.admitted);
    }
    assert_eq!(say(&redis, "GET cg:{t}:log").await, before);
}
