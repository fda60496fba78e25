//! Leases of calls: random histories against a list, an outage, and what is left when nobody waits for an answer.

use std::sync::Arc;
use std::time::Duration;

use callgate::config::{OnFailure, Plan};
use callgate::limits::{
    CallLease, Charge, Decision, DenyCache, LimitOutcome, LimitSubject, Limiter, MemoryLimiter, RedisLimiter, Source,
};
use callgate::store::Redis;
use redis::Value;

use super::oracle::Oracle;
use super::stores::{
    VERSION, connect, instance, instance_within, issue, plan, say, set_clock, unix_ms, with_set_clock,
};
use crate::support::eventually;
use crate::support::redis::RedisServer;

const CAP: u32 = 5;

fn capped(limits: &[(u32, u32)]) -> Plan {
    Plan { concurrent_calls: Some(CAP), ..plan(limits) }
}

async fn open(limiter: &Limiter, token_id: &str, plan: &Plan, now_ms: u64) -> (Decision, Option<CallLease>) {
    let charge = Charge { opens_call: true, ..1.into() };
    match limiter.decide(&LimitSubject { token_id, version: VERSION }, plan, charge, now_ms, &|| true).await.unwrap() {
        LimitOutcome::Decided(decision, lease) => (decision, lease),
        LimitOutcome::Stale => panic!("{token_id} is stale"),
    }
}

fn shared(limiter: &Limiter) -> &RedisLimiter {
    let Limiter::Redis(limiter) = limiter else { panic!("not in Redis") };
    limiter
}

async fn leases(redis: &Redis) -> i64 {
    let Value::Int(leases) = say(redis, "ZCARD cg:{t}:calls").await else { panic!("no number") };
    leases
}

/// An open call: who holds its lease, and when that ends.
struct Open {
    instance: usize,
    ends: i64,
    lease: CallLease,
}

/// Calls that count at a moment. In memory leases end only with their calls.
fn counted(calls: &[Open], clock: i64, lasting: bool) -> u32 {
    calls.iter().filter(|call| lasting || call.ends > clock && call.ends <= clock + 35_000).count() as u32
}

/// Replays a random history on instances that share a store.
async fn replay(instances: &[Limiter], shared_by: Option<&Redis>, token_id: &str, limits: &[(u32, u32)]) {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let (plan, lasting) = (capped(limits), shared_by.is_none());
    let (mut clock, mut calls, mut oracle, mut full) = (1_700_000_000_000, Vec::<Open>::new(), Oracle::default(), 0);
    for step in 0..600 {
        clock += match random.u8(..10) {
            0..5 => 0,
            5..8 => random.i64(1..5_000),
            8 => random.i64(5_000..40_000),
            _ => [-3_000, -1, 29_999, 30_000, 30_001][random.usize(..5)],
        };
        if let Some(redis) = shared_by {
            set_clock(redis, token_id, clock).await;
        }
        let at = format!("seed {seed}, step {step} at {clock}, limits {limits:?}");
        let instance = random.usize(..instances.len());
        match random.u8(..10) {
            0..6 => {
                // An instance knows of the calls that it holds by itself, even when their leases have ended.
                let held = calls.iter().filter(|call| call.instance == instance).count();
                let is_full = counted(&calls, clock, lasting) >= CAP || held >= CAP as usize;
                let before = oracle.peek(limits, clock);
                let mut trial = oracle.clone();
                let expected = trial.decide(limits, 1, clock);
                let (decision, lease) = open(&instances[instance], token_id, &plan, clock as u64).await;
                let too_many = (expected.admitted && is_full).then_some(CAP);
                assert_eq!(decision.too_many_calls, too_many, "{at}");
                assert_eq!(decision.admitted, expected.admitted && !is_full, "{at}");
                assert_eq!(lease.is_some(), decision.admitted, "{at}");
                let windows = decision.windows().iter();
                if too_many.is_some() {
                    assert!(windows.map(|it| it.used).eq(before.into_iter().map(|it| it.0)), "{at}: it was counted");
                    // A new clock is taken over all the same.
                    oracle.time(clock);
                    full += 1;
                } else {
                    let windows: Vec<_> =
                        windows.map(|it| (it.used, it.limit, it.window_ms, it.frees_ms as i64)).collect();
                    assert_eq!(windows, expected.windows, "{at}");
                    oracle = trial;
                }
                if let Some(lease) = lease {
                    calls.push(Open { instance, ends: clock + 30_000, lease });
                }
            }
            6..8 if !calls.is_empty() => {
                let ended = calls.swap_remove(random.usize(..calls.len()));
                drop(ended.lease);
                if !lasting {
                    shared(&instances[ended.instance]).give_calls_back().await;
                }
            }
            8.. if !lasting => {
                shared(&instances[instance]).renew_calls().await;
                calls.iter_mut().filter(|call| call.instance == instance).for_each(|call| call.ends = clock + 30_000);
            }
            _ => {}
        }
        let report =
            instances[instance].peek(&LimitSubject { token_id, version: VERSION }, &plan, &[], clock as u64).await;
        assert_eq!(report.unwrap().unwrap().open_calls, Some(counted(&calls, clock, lasting)), "{at}");
    }
    assert!(full > 5, "seed {seed}: too many only {full} times");
}

#[tokio::test]
async fn leases_in_redis_agree_with_a_model() {
    let server = RedisServer::start();
    let redis = connect(&server, OnFailure::Deny).await;
    // Refusals by a window would be remembered in real time: here there are none.
    for (history, limits) in
        [&[][..], &[(10_000, 60_000)], &[(9_000, 10_000), (10_000, 3_600_000)]].into_iter().enumerate()
    {
        let mut instances = Vec::new();
        for _ in 0..2 {
            let redis = connect(&server, OnFailure::Deny).await;
            let (local, denials) = (Arc::new(MemoryLimiter::new(64)), Arc::new(DenyCache::new(64)));
            let limiter = RedisLimiter::new(redis, OnFailure::Deny, local, denials, Arc::default());
            instances.push(Limiter::Redis(with_set_clock(limiter)));
        }
        replay(&instances, Some(&redis), &format!("t{history}"), limits).await;
    }
}

#[tokio::test]
async fn leases_in_memory_agree_with_a_model() {
    for limits in [&[][..], &[(1_000, 60_000)], &[(7, 10_000), (300, 3_600_000)]] {
        let memory = Arc::new(MemoryLimiter::new(64));
        let workers = [Limiter::Memory(memory.clone()), Limiter::Memory(memory)];
        replay(&workers, None, "t", limits).await;
    }
}

#[tokio::test]
async fn a_window_that_refuses_takes_no_lease() {
    let server = RedisServer::start();
    let (limiter, redis) = instance(&server, OnFailure::Deny).await;
    issue(&redis, "t").await;
    let plan = capped(&[(2, 60_000)]);
    let _calls = [open(&limiter, "t", &plan, 0).await, open(&limiter, "t", &plan, 0).await];
    // The instance that admitted the last one knows; others have to ask.
    let (other, _) = instance(&server, OnFailure::Deny).await;
    for (limiter, source) in [(&limiter, Source::DenyCache), (&other, Source::Redis)] {
        let (refused, lease) = open(limiter, "t", &plan, 0).await;
        assert_eq!((refused.admitted, refused.too_many_calls, lease.is_none()), (false, None, true));
        assert_eq!(refused.source, source);
        assert_eq!(leases(&redis).await, 2);
    }
}

#[tokio::test]
async fn calls_are_capped_during_an_outage_and_recorded_after_it() {
    let mut server = RedisServer::start();
    let (limiter, redis) = instance(&server, OnFailure::Local).await;
    issue(&redis, "t").await;
    let plan = capped(&[(60, 60_000)]);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(open(&limiter, "t", &plan, unix_ms()).await.1.unwrap());
    }
    assert_eq!(leases(&redis).await, 3);
    server.kill();
    for _ in 0..2 {
        let (decision, lease) = open(&limiter, "t", &plan, unix_ms()).await;
        assert_eq!(decision.source, Source::Local);
        held.push(lease.unwrap());
    }
    let (refused, none) = open(&limiter, "t", &plan, unix_ms()).await;
    assert_eq!((refused.too_many_calls, refused.windows()[0].used, none.is_none()), (Some(CAP), 5, true));
    held.pop();
    held.push(open(&limiter, "t", &plan, unix_ms()).await.1.expect("a place is free again"));

    server.restart();
    eventually("a new connection", async || redis.is_up().then_some(())).await;
    issue(&redis, "t").await;
    shared(&limiter).renew_calls().await;
    assert_eq!(leases(&redis).await, 5);
    assert_eq!(open(&limiter, "t", &plan, unix_ms()).await.0.too_many_calls, Some(CAP));
    drop(held);
    shared(&limiter).give_calls_back().await;
    assert_eq!(leases(&redis).await, 0);
}

/// Leases expire in a long outage. Until every instance has had time to renew them they count all the same.
#[tokio::test]
async fn leases_that_ended_in_an_outage_count_until_they_can_have_been_renewed() {
    let mut server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut instances = Vec::new();
    for _ in 0..2 {
        let redis = connect(&server, OnFailure::Deny).await;
        let (local, denials) = (Arc::new(MemoryLimiter::new(64)), Arc::new(DenyCache::new(64)));
        let limiter = RedisLimiter::new(redis.clone(), OnFailure::Deny, local, denials, Arc::default());
        instances.push((Limiter::Redis(with_set_clock(limiter)), redis));
    }
    let [(holder, _), (other, redis)] = &instances[..] else { panic!("two") };
    let (plan, clock) = (capped(&[(60, 60_000)]), 1_700_000_000_000);
    set_clock(redis, "t", clock).await;
    let mut held = Vec::new();
    for _ in 0..CAP {
        held.push(open(holder, "t", &plan, clock as u64).await.1.expect("there is room"));
    }
    server.kill();
    eventually("an outage of a second", async || redis.lost_at().filter(|at| at.elapsed().as_secs() >= 1)).await;
    server.restart();
    eventually("the connections", async || instances.iter().all(|(_, redis)| redis.is_up()).then_some(())).await;
    // Half a second after the leases have ended.
    set_clock(redis, "t", clock + 30_500).await;
    let (refused, none) = open(other, "t", &plan, clock as u64).await;
    assert_eq!((refused.too_many_calls, none.is_none()), (Some(CAP), true));
    // Those that had ended long before don't count.
    set_clock(redis, "t", clock + 600_000).await;
    assert!(open(other, "t", &plan, clock as u64).await.1.is_some());
}

/// Whatever Redis has lost, and whether it answers or not.
#[tokio::test]
async fn an_instance_that_holds_all_calls_of_a_token_refuses_one_more_by_itself() {
    let mut server = RedisServer::start();
    let (limiter, redis) = instance(&server, OnFailure::Deny).await;
    issue(&redis, "t").await;
    let plan = capped(&[(60, 60_000)]);
    let mut held = Vec::new();
    for _ in 0..CAP {
        held.push(open(&limiter, "t", &plan, unix_ms()).await.1.expect("there is room"));
    }
    say(&redis, "DEL cg:{t}:calls").await;
    let (refused, _) = open(&limiter, "t", &plan, unix_ms()).await;
    assert_eq!((refused.source, refused.too_many_calls), (Source::Redis, Some(CAP)));
    held.pop();
    held.push(open(&limiter, "t", &plan, unix_ms()).await.1.expect("there is room again"));
    server.kill();
    let (refused, _) = open(&limiter, "t", &plan, unix_ms()).await;
    assert_eq!((refused.source, refused.too_many_calls), (Source::Local, Some(CAP)));
}

#[tokio::test]
async fn an_abandoned_lease_is_returned() {
    let server = RedisServer::start();
    let (limiter, redis) = instance_within(&server.url(), OnFailure::Local, Duration::from_secs(2)).await;
    let (_, watcher) = instance(&server, OnFailure::Deny).await;
    issue(&watcher, "t").await;
    let plan = capped(&[(60, 60_000)]);
    drop(open(&limiter, "t", &plan, unix_ms()).await);
    shared(&limiter).give_calls_back().await;
    assert_eq!(leases(&watcher).await, 0);
    server.pause();
    // One misses its deadline and is let in by this process, one is given up by its client.
    let patient = open(&limiter, "t", &plan, unix_ms());
    let given_up = tokio::time::timeout(Duration::from_millis(20), open(&limiter, "t", &plan, unix_ms()));
    let ((decision, lease), given_up) = tokio::join!(patient, given_up);
    assert_eq!((decision.source, lease.is_some()), (Source::Local, true));
    assert!(given_up.is_err());
    server.resume();
    eventually("both to arrive", async || (leases(&watcher).await == 2).then_some(())).await;
    eventually("the connection", async || redis.is_up().then_some(())).await;
    shared(&limiter).give_calls_back().await;
    assert_eq!(leases(&watcher).await, 1);
    drop(lease);
    shared(&limiter).give_calls_back().await;
    assert_eq!(leases(&watcher).await, 0);
}
