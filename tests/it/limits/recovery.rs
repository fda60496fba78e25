//! Local admissions of an outage are merged into Redis once it is back: each exactly once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use callgate::config::{OnFailure, Plan};
use callgate::limits::{
    Charge, Decision, DenyCache, LimitOutcome, LimitSubject, Limiter, MERGE, MemoryLimiter, PendingMerges,
    RedisLimiter, Source,
};
use callgate::store::Redis;
use redis::Value;
use rustix::process::Signal;

use super::stores::{VERSION, connect, decide, instance, instance_within, issue, plan, route, say, unix_ms};
use crate::support::client::{get, header, http2};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Site};
use crate::support::proxy::{Passing, Proxy};
use crate::support::redis::RedisServer;
use crate::support::upstream::Upstream;

/// So that a Redis that is killed still has everything when it comes back.
fn durable() -> RedisServer {
    RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
}

async fn back(redis: &Redis) {
    let ping = redis::cmd("PING");
    eventually("the connection to be back", async || redis.call(&ping).await.ok()).await;
}

/// Decides until Redis does; the answer to that, and how many more were admitted locally until then.
async fn used(limiter: &Limiter, token: &str, plan: &Plan) -> (u32, u32) {
    let mut local = 0;
    let used = eventually("Redis to decide", async || {
        let decision = decide(limiter, token, plan).await;
        local += u32::from(decision.admitted && decision.source == Source::Local);
        (decision.source == Source::Redis).then(|| decision.windows()[0].used)
    });
    (used.await, local)
}

#[tokio::test]
async fn local_admissions_are_merged_before_the_next_decision() {
    let mut server = durable();
    let (first, redis) = instance(&server, OnFailure::Local).await;
    let (second, other) = instance(&server, OnFailure::Local).await;
    issue(&redis, "t").await;
    let plan = plan(&[(60, 60_000), (1_000, 3_600_000)]);
    for _ in 0..10 {
        assert_eq!(decide(&first, "t", &plan).await.source, Source::Redis);
    }
    server.kill();
    for _ in 0..7 {
        assert_eq!(decide(&first, "t", &plan).await.source, Source::Local);
    }
    for _ in 0..20 {
        assert_eq!(decide(&second, "t", &plan).await.source, Source::Local);
    }
    server.restart();
    back(&redis).await;
    let (seen, more) = used(&first, "t", &plan).await;
    assert_eq!(seen, 10 + 7 + more + 1);
    back(&other).await;
    let (all, later) = used(&second, "t", &plan).await;
    assert_eq!(all, seen + 20 + later + 1);
    // Until the union is used up, and not one more.
    for used in all + 1..=60 {
        assert_eq!(decide(&first, "t", &plan).await.windows()[0].used, used);
    }
    assert!(!decide(&first, "t", &plan).await.admitted);
}

/// Instances that did not know of each other may have admitted more than the limit: then nobody is admitted until that left.
#[tokio::test]
async fn admissions_above_the_limit_delay_the_next_admission() {
    let mut server = durable();
    let (first, redis) = instance(&server, OnFailure::Local).await;
    let (second, other) = instance(&server, OnFailure::Local).await;
    issue(&redis, "t").await;
    let plan = plan(&[(5, 3_000), (1_000, 3_600_000)]);
    server.kill();
    for limiter in [&first, &second] {
        for _ in 0..5 {
            assert!(decide(limiter, "t", &plan).await.admitted);
        }
    }
    server.restart();
    back(&redis).await;
    back(&other).await;
    // The hour remembers all of them, however long this took.
    used(&second, "t", &plan).await;
    let decision = eventually("both to have merged", async || {
        let decision = decide(&first, "t", &plan).await;
        (decision.source == Source::Redis && decision.windows()[1].used >= 10).then_some(decision)
    })
    .await;
    assert!(decision.windows()[0].used <= 10);
}

#[tokio::test]
async fn logs_without_requests_are_merged_in_the_background() {
    let mut server = durable();
    let (limiter, redis) = instance(&server, OnFailure::Local).await;
    let (witness, other) = instance(&server, OnFailure::Local).await;
    let plan = plan(&[(60, 60_000)]);
    for token in 0..200 {
        issue(&redis, &format!("t{token}")).await;
    }
    server.kill();
    for token in 0..200 {
        for _ in 0..=token % 3 {
            assert!(decide(&limiter, &format!("t{token}"), &plan).await.admitted);
        }
    }
    let limiter = Arc::new(limiter);
    let keeper = tokio::spawn({
        let limiter = limiter.clone();
        async move { limiter.run().await }
    });
    server.restart();
    back(&other).await;
    eventually("all to be merged", async || {
        let Value::Array(keys) = say(&other, "KEYS cg:*:log").await else { panic!() };
        (keys.len() == 200).then_some(())
    })
    .await;
    for token in 0..200 {
        let decision = decide(&witness, &format!("t{token}"), &plan).await;
        assert_eq!((decision.source, decision.windows()[0].used), (Source::Redis, token % 3 + 2), "t{token}");
    }
    keeper.abort();
}

/// Workers share a journal; whatever the order of what they do at the same time, each admission counts once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_merge_every_admission_exactly_once() {
    let mut server = durable();
    let plan = Arc::new(plan(&[(100_000, 3_600_000)]));
    let (journal, local) = (Arc::new(PendingMerges::default()), Arc::new(MemoryLimiter::new(1_000)));
    let mut workers = Vec::new();
    for _ in 0..3 {
        let redis = connect(&server, OnFailure::Local).await;
        let denials = Arc::new(DenyCache::new(64));
        let limiter = RedisLimiter::new(redis.clone(), OnFailure::Local, local.clone(), denials, journal.clone());
        workers.push((Arc::new(Limiter::Redis(limiter)), redis));
    }
    for token in 0..8 {
        issue(&workers[0].1, &format!("t{token}")).await;
    }
    let keepers: Vec<_> = workers.iter().map(|(limiter, _)| limiter.clone()).collect();
    let keepers: Vec<_> = keepers.into_iter().map(|limiter| tokio::spawn(async move { limiter.run().await })).collect();
    let over = Arc::new(AtomicBool::new(false));
    let load = workers.iter().map(|(limiter, _)| {
        let (limiter, plan, over) = (limiter.clone(), plan.clone(), over.clone());
        tokio::spawn(async move {
            let mut admitted = [0u32; 8];
            while !over.load(Ordering::Relaxed) {
                let tokens: Vec<usize> = (0..4).map(|_| fastrand::usize(..8)).collect();
                let asked = tokens.iter().map(|token| format!("t{token}")).collect::<Vec<_>>();
                let decisions = asked.iter().map(|token| decide(&limiter, token, &plan));
                for (token, decision) in tokens.iter().zip(futures_util::future::join_all(decisions).await) {
                    assert!(decision.admitted);
                    admitted[*token] += 1;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            admitted
        })
    });
    let load: Vec<_> = load.collect();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.kill();
        eventually("some to be admitted locally", async || (journal.len() > 100).then_some(())).await;
        server.restart();
        eventually("the journal to be empty", async || journal.is_empty().then_some(())).await;
    }
    over.store(true, Ordering::Relaxed);
    let mut admitted = [0; 8];
    for worker in load {
        worker.await.unwrap().iter().zip(&mut admitted).for_each(|(more, sum)| *sum += more);
    }
    eventually("the journal to be empty", async || journal.is_empty().then_some(())).await;
    // A call that was under way when Redis was killed may have been carried out all the same: each of the 3 workers had at
    // most 4 of them, 3 times.
    let mut twice = 0;
    for (token, admitted) in admitted.iter().enumerate() {
        let used = decide(&workers[0].0, &format!("t{token}"), &plan).await.windows()[0].used - 1;
        assert!(used >= *admitted, "t{token}: {used} of {admitted}");
        twice += used - admitted;
    }
    assert!(twice <= 36, "{twice} counted twice");
    keepers.iter().for_each(tokio::task::JoinHandle::abort);
}

/// A route with limits has a log of its own, which is merged too.
#[tokio::test]
async fn both_logs_of_a_request_are_merged() {
    let mut server = durable();
    let (limiter, redis) = instance(&server, OnFailure::Local).await;
    let (witness, other) = instance(&server, OnFailure::Local).await;
    issue(&redis, "t").await;
    let (plan, own) = (plan(&[(60, 60_000)]), route("a}:log/b", &[(9, 60_000), (90, 600_000)]));
    let ask = async |limiter: &Limiter| {
        let (subject, charge) =
            (LimitSubject { token_id: "t", version: VERSION }, Charge { limits: Some(&own), ..2.into() });
        match limiter.decide(&subject, &plan, charge, unix_ms(), &|| true).await.unwrap() {
            LimitOutcome::Decided(decision, _) => decision,
            LimitOutcome::Stale => panic!("stale"),
        }
    };
    server.kill();
    for _ in 0..3 {
        assert_eq!(ask(&limiter).await.source, Source::Local);
    }
    assert_eq!(decide(&limiter, "t", &plan).await.source, Source::Local);
    server.restart();
    back(&redis).await;
    back(&other).await;
    let decision = ask(&limiter).await;
    let used = |decision: &Decision| decision.windows().iter().map(|window| window.used).collect::<Vec<_>>();
    assert_eq!((decision.source, used(&decision)), (Source::Redis, vec![9, 8, 8]));
    let refused = ask(&witness).await;
    assert_eq!((refused.source, refused.admitted, used(&refused)), (Source::Redis, false, vec![9, 8, 8]));
}

/// Far longer than an answer takes, and short enough to wait for.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);

/// One instance behind a network of its own, which has admitted as many as told by itself, on a Redis that is back.
async fn behind_a_network(server: &mut RedisServer, plan: &Plan, count: usize) -> (Limiter, Proxy) {
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], server.port()))).await;
    let url = format!("redis://{}", proxy.address);
    let (limiter, redis) = instance_within(&url, OnFailure::Local, ANSWER_DEADLINE).await;
    issue(&redis, "t").await;
    server.kill();
    for _ in 0..count {
        assert_eq!(decide(&limiter, "t", plan).await.source, Source::Local);
    }
    server.restart();
    back(&redis).await;
    (limiter, proxy)
}

#[tokio::test]
async fn a_merge_whose_answer_is_lost_counts_once() {
    let mut server = durable();
    let plan = plan(&[(600, 600_000)]);
    let (limiter, proxy) = behind_a_network(&mut server, &plan, 5).await;
    let (witness, other) = instance(&server, OnFailure::Local).await;
    server.say::<String>(&["SCRIPT", "LOAD", MERGE]);
    proxy.when_asked(redis::Script::new(MERGE).get_hash(), Passing::Questions);
    assert_eq!(decide(&limiter, "t", &plan).await.source, Source::Local);
    assert!(proxy.was_asked());
    eventually("the merge to be carried out", async || {
        matches!(say(&other, "EXISTS cg:{t}:log").await, Value::Int(1)).then_some(())
    })
    .await;
    assert_eq!(decide(&witness, "t", &plan).await.windows()[0].used, 5 + 1);
    proxy.let_pass(Passing::Both);
    let (seen, more) = used(&limiter, "t", &plan).await;
    assert_eq!(seen, 5 + 1 + 1 + more + 1);
}

#[tokio::test]
async fn a_merge_that_comes_late_puts_admissions_where_they_were() {
    let mut server = durable();
    let plan = plan(&[(600, 600_000)]);
    let (limiter, proxy) = behind_a_network(&mut server, &plan, 5).await;
    let admitted = unix_ms();
    server.say::<String>(&["SCRIPT", "LOAD", MERGE]);
    proxy.when_asked(redis::Script::new(MERGE).get_hash(), Passing::Nothing);
    // Given up for want of an answer, and decided here.
    assert_eq!(decide(&limiter, "t", &plan).await.source, Source::Local);
    assert!(proxy.was_asked());
    let (witness, other) = instance(&server, OnFailure::Local).await;
    assert_eq!(say(&other, "EXISTS cg:{t}:log").await, Value::Int(0));
    let late = eventually("some time to pass", async || {
        (unix_ms() > admitted + 2 * ANSWER_DEADLINE.as_millis() as u64).then(unix_ms)
    });
    let late = late.await;
    proxy.let_pass(Passing::Both);
    eventually("the merge to be carried out", async || {
        matches!(say(&other, "EXISTS cg:{t}:log").await, Value::Int(1)).then_some(())
    })
    .await;
    let seen = decide(&witness, "t", &plan).await.windows()[0];
    let oldest = seen.frees_ms - 600_000;
    assert!(
        oldest <= admitted + ANSWER_DEADLINE.as_millis() as u64,
        "{oldest}, admitted by {admitted}, merged at {late}"
    );
}

#[tokio::test]
async fn admissions_before_a_reset_are_not_merged_after_it() {
    let mut server = durable();
    let (first, redis) = instance(&server, OnFailure::Local).await;
    let (second, other) = instance(&server, OnFailure::Local).await;
    issue(&redis, "t").await;
    let plan = plan(&[(60, 60_000)]);
    server.kill();
    for limiter in [&first, &second] {
        for _ in 0..9 {
            assert!(decide(limiter, "t", &plan).await.admitted);
        }
    }
    server.restart();
    back(&redis).await;
    back(&other).await;
    first.reset("t", &[]).await.unwrap();
    for (used, limiter) in [(1, &first), (2, &second)] {
        let decision = decide(limiter, "t", &plan).await;
        assert_eq!((decision.source, decision.windows()[0].used), (Source::Redis, used));
    }
}

#[tokio::test]
async fn a_stopping_instance_merges_its_pending_admissions() {
    let mut server = durable();
    let (limiter, redis) = instance(&server, OnFailure::Local).await;
    let (witness, other) = instance(&server, OnFailure::Local).await;
    let plan = plan(&[(60, 60_000)]);
    server.kill();
    for token in 0..100 {
        for _ in 0..3 {
            assert!(decide(&limiter, &format!("t{token}"), &plan).await.admitted);
        }
    }
    server.restart();
    back(&redis).await;
    back(&other).await;
    eventually("all to be merged", async || {
        limiter.end().await;
        matches!(say(&other, "DBSIZE").await, Value::Int(200)).then_some(())
    })
    .await;
    for token in 0..100 {
        let token = format!("t{token}");
        issue(&other, &token).await;
        assert_eq!(decide(&witness, &token, &plan).await.windows()[0].used, 4);
    }
}

/// Metrics and log lines of merges, and an instance that stops during an outage.
#[tokio::test]
async fn the_gateway_reports_merged_and_dropped_admissions() {
    let mut redis = durable();
    let upstream = Upstream::start().await;
    let mut gateway = Site::on_redis(&redis.url(), ", deadline: 10s", upstream.address, "").serve();
    let (token, client) = (gateway.site.token(&[]), http2(&gateway));
    let said = |gateway: &Gateway, what: &str| {
        gateway.log().iter().any(|line| line["message"].as_str().is_some_and(|message| message.contains(what)))
    };
    let ask = async |times: usize| {
        for _ in 0..times {
            let response = get(&client, &gateway, "/status/200", &token).await;
            assert_eq!(response.status(), 200);
        }
    };
    ask(3).await;
    redis.kill();
    ask(4).await;
    assert_eq!(gateway.metric("callgate_unmerged_admissions").await, Some(4.0));
    redis.restart();
    let merged = async |admissions: f64| {
        eventually("admissions to be merged", async || {
            (gateway.metric("callgate_merged_admissions_total").await == Some(admissions)).then_some(())
        })
        .await;
    };
    merged(4.0).await;
    let response = get(&client, &gateway, "/status/200", &token).await;
    assert_eq!(header(&response, "x-ratelimit-remaining"), "52");
    // It breaks once more, for a moment; one line sums it up.
    redis.kill();
    ask(2).await;
    redis.restart();
    merged(6.0).await;
    eventually("the merges to be reported", async || {
        said(&gateway, "merged 6 admissions made while Redis was unreachable into 2 logs").then_some(())
    })
    .await;
    assert_eq!(gateway.metric("callgate_unmerged_admissions").await, Some(0.0));
    assert_eq!(gateway.metric("callgate_dropped_admissions_total").await, Some(0.0));
    // Redis confirms the token.
    ask(1).await;

    redis.kill();
    ask(2).await;
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait().await.code(), Some(0));
    assert!(said(&gateway, "2 admissions made while Redis was unreachable could not be merged into 1 logs"));
}
