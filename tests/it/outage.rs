//! Answers, metrics and log lines while Redis is absent, killed, frozen, emptied or without its scripts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::{Client, Response};
use serde_json::Value;

use crate::support::client::{get, header, http1, http2};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::redis::RedisServer;
use crate::support::upstream::Upstream;

const UP: &str = "callgate_store_up";
/// The deadline of most tests: what has Redis's answer in time must not depend on how busy the machine is.
const PATIENT: &str = ", deadline: 10s";
/// So that a Redis that is killed still has everything when it comes back.
const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

struct Stage {
    redis: RedisServer,
    upstream: Upstream,
    gateway: Gateway,
    client: Client,
}

impl Stage {
    async fn new(redis: RedisServer, store: &str) -> Self {
        let upstream = Upstream::start().await;
        let gateway = Site::on_redis(&redis.url(), store, upstream.address, "").serve();
        let client = http2(&gateway);
        Self { redis, upstream, gateway, client }
    }

    async fn get(&self, token: &Token) -> Response {
        get(&self.client, &self.gateway, "/status/200", token).await
    }

    async fn remaining(&self, token: &Token) -> u64 {
        let response = self.get(token).await;
        assert_eq!(response.status(), 200);
        header(&response, "x-ratelimit-remaining").parse().unwrap()
    }

    async fn is_up(&self, up: f64) {
        eventually("the gauge to follow", async || (self.gateway.metric(UP).await == Some(up)).then_some(())).await;
    }

    /// Waits until the log has told how Redis is, in this order and no more: `true` for "answers".
    async fn tells(&self, changes: &[bool]) {
        let about_redis = |line: &Value| {
            let message = line["message"].as_str().unwrap_or_default();
            (message == "Redis answers" || message.contains("store.redis.on_failure decides"))
                .then(|| message == "Redis answers")
        };
        let told = || self.gateway.log().iter().filter_map(about_redis).collect::<Vec<_>>();
        eventually("the log to tell", async || (told() == changes).then_some(())).await;
    }
}

async fn unavailable(response: Response) {
    assert_eq!(response.status(), 503);
    let wait: u64 = header(&response, "retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(header(&response, "x-ratelimit-limit"), "");
    assert_eq!(header(&response, "www-authenticate"), "");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["code"], "unavailable");
    let message = body["message"].as_str().unwrap().to_lowercase();
    assert!(!message.contains("redis") && !message.contains("127.0.0.1"), "{message}");
}

#[tokio::test]
async fn an_instance_starts_without_redis_and_serves_once_redis_answers() {
    let mut redis = RedisServer::start();
    let site = Site::on_redis(&redis.url(), PATIENT, "127.0.0.1:9".parse().unwrap(), "");
    let token = site.token(&[]);
    redis.kill();
    let mut stage = Stage::new(redis, PATIENT).await;
    let (status, why) = stage.gateway.admin("/readyz").await;
    assert_eq!(status, 503);
    assert!(why.contains("Redis has not answered since the start"), "{why}");
    assert_eq!(stage.gateway.admin("/livez").await.0, 200);
    assert_eq!(stage.gateway.metric(UP).await, Some(0.0));
    for client in [http1(&stage.gateway), http2(&stage.gateway)] {
        unavailable(get(&client, &stage.gateway, "/status/200", &token).await).await;
        // A request that needs no look-up gets its usual answer.
        assert_eq!(client.get(stage.gateway.url("/")).send().await.unwrap().status(), 401);
        let forged =
            client.get(stage.gateway.url("/")).bearer_auth("kal_live_000000000000000000").send().await.unwrap();
        assert!([401, 503].contains(&forged.status().as_u16()), "{}", forged.status());
    }
    // A few attempts to connect later it has still been said once.
    tokio::time::sleep(Duration::from_millis(600)).await;
    stage.tells(&[false]).await;

    stage.redis.restart();
    eventually("readiness", async || (stage.gateway.admin("/readyz").await.0 == 200).then_some(())).await;
    stage.is_up(1.0).await;
    let token = stage.gateway.site.token(&[]);
    assert_eq!(stage.remaining(&token).await, 59);
    stage.tells(&[false, true]).await;
    assert_eq!(stage.upstream.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_under_load_is_replaced_by_the_local_limiter_without_an_error() {
    let mut stage = Stage::new(RedisServer::start_with(&DURABLE), PATIENT).await;
    // The limit is reached well after the kill.
    let token = stage.gateway.site.token_with(&[], &["--limit", "minute=600/30m", "--limit", "hour=100000/1h"]);
    let spare = stage.gateway.site.token_with(&[], &["--limit", "minute=60/30m"]);
    assert_eq!(stage.remaining(&spare).await, 59);
    for _ in 0..200 {
        assert_eq!(stage.get(&token).await.status(), 200);
    }
    let over = Arc::new(AtomicBool::new(false));
    let lanes: Vec<_> = [http1(&stage.gateway), http2(&stage.gateway)]
        .into_iter()
        .flat_map(|client| vec![client; 4])
        .map(|client| {
            let (url, secret, over) = (stage.gateway.url("/status/200"), token.secret.clone(), over.clone());
            tokio::spawn(async move {
                let mut statuses = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let response = client.get(&url).bearer_auth(&secret).send().await.unwrap();
                    assert_ne!(header(&response, "x-ratelimit-limit"), "");
                    statuses.push(response.status().as_u16());
                    // The load lasts from before the kill to after the limit.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                statuses
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    stage.redis.kill();
    stage.is_up(0.0).await;
    let local = r#"callgate_decisions_total{outcome="denied",source="local"}"#;
    eventually("the local limiter to refuse", async || (stage.gateway.metric(local).await > Some(20.0)).then_some(()))
        .await;
    over.store(true, Ordering::Relaxed);
    let mut admitted = 200;
    for lane in lanes {
        let statuses = lane.await.unwrap();
        assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
        admitted += statuses.iter().filter(|status| **status == 200).count();
    }
    // The local limiter counts the admissions of Redis too: not one request more than the limit.
    assert_eq!(admitted, 600);
    assert_eq!(stage.gateway.admin("/readyz").await.0, 200, "an outage takes no instance out of the rotation");
    unavailable(stage.client.get(stage.gateway.url("/")).bearer_auth("foreign-and-unknown").send().await.unwrap())
        .await;

    stage.redis.restart();
    stage.is_up(1.0).await;
    let redis = r#"callgate_decisions_total{outcome="admitted",source="redis"}"#;
    let before = stage.gateway.metric(redis).await;
    assert_eq!(stage.remaining(&spare).await, 58, "Redis has kept its log");
    assert!(stage.gateway.metric(redis).await > before);
    stage.tells(&[true, false, true]).await;
}

#[tokio::test]
async fn a_shadow_plan_denies_no_request_under_policy_deny() {
    let mut redis = RedisServer::start();
    let upstream = Upstream::start().await;
    let plans = "plans: { standard: { limits: { minute: 3/1m }, shadow: true } }";
    let gateway = Site::on_redis(&redis.url(), ", deadline: 10s, on_failure: deny", upstream.address, plans).serve();
    let token = gateway.site.token(&[]);
    let client = http2(&gateway);
    assert_eq!(header(&get(&client, &gateway, "/status/200", &token).await, "x-ratelimit-shadow"), "");
    redis.kill();
    let forwarded = get(&client, &gateway, "/status/200", &token).await;
    assert_eq!((forwarded.status().as_u16(), header(&forwarded, "x-ratelimit-shadow")), (200, "denied"));
    assert_eq!(gateway.metric("callgate_shadow_denials_total").await, Some(1.0));
    assert_eq!(gateway.access("/status/200", 2).await[1]["shadow"], "denied");
}

#[tokio::test]
async fn policy_deny_rejects_every_request_without_redis() {
    let mut stage = Stage::new(RedisServer::start_with(&DURABLE), ", deadline: 10s, on_failure: deny").await;
    let token = stage.gateway.site.token(&[]);
    assert_eq!(stage.remaining(&token).await, 59);
    stage.redis.kill();
    for _ in 0..10 {
        unavailable(stage.get(&token).await).await;
    }
    assert_eq!(stage.upstream.seen().len(), 1);
    stage.redis.restart();
    stage.is_up(1.0).await;
    assert_eq!(stage.remaining(&token).await, 58);
    stage.tells(&[true, false, true]).await;
}

#[tokio::test]
async fn policy_allow_forwards_every_request_without_redis() {
    let mut stage = Stage::new(RedisServer::start_with(&DURABLE), ", deadline: 10s, on_failure: allow").await;
    let token = stage.gateway.site.token_with(&[], &["--limit", "minute=3/1m"]);
    assert_eq!(stage.remaining(&token).await, 2);
    stage.redis.kill();
    for _ in 0..10 {
        let response = stage.get(&token).await;
        assert_eq!(response.status(), 200);
        assert!(!response.headers().keys().any(|name| name.as_str().contains("ratelimit")), "{response:?}");
    }
    stage.redis.restart();
    stage.is_up(1.0).await;
    assert_eq!(stage.remaining(&token).await, 1);
}

#[tokio::test]
async fn a_frozen_redis_delays_only_a_few_requests() {
    let stage = Stage::new(RedisServer::start(), ", deadline: 1s").await;
    let token = stage.gateway.site.token_with(&[], &["--limit", "minute=10000/1m", "--limit", "hour=10000/1h"]);
    eventually("the token to be known", async || (stage.get(&token).await.status() == 200).then_some(())).await;
    // Over HTTP/1.1 the connections are spread over the workers.
    let clients: Vec<Client> = (0..6).map(|_| http1(&stage.gateway)).collect();
    stage.redis.pause();
    for _ in 0..25 {
        for client in &clients {
            let response = get(client, &stage.gateway, "/frozen", &token).await;
            assert_eq!(response.status(), 200);
            assert_ne!(header(&response, "x-ratelimit-remaining"), "");
        }
    }
    let lines = stage.gateway.access("/frozen", 25 * clients.len()).await;
    assert!(lines.iter().all(|line| line["decided_by"] == "local"));
    // Three misses open a connection's circuit; each worker has one connection. Without the circuits each of the 150
    // decisions would wait.
    let waited = lines.iter().filter(|line| line["decision_ms"].as_f64() >= Some(1_000.0)).count();
    assert!((1..=15).contains(&waited), "{waited} of {} decisions waited for Redis", lines.len());
    assert_eq!(stage.gateway.metric(UP).await, Some(0.0));

    stage.redis.resume();
    stage.is_up(1.0).await;
    let admitted = r#"callgate_decisions_total{outcome="admitted",source="redis"}"#;
    let before = stage.gateway.metric(admitted).await;
    eventually("Redis to decide again", async || {
        stage.get(&token).await;
        (stage.gateway.metric(admitted).await > before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn flushed_scripts_are_loaded_again() {
    let stage = Stage::new(RedisServer::start(), PATIENT).await;
    let token = stage.gateway.site.token(&[]);
    for remaining in (50..60).rev() {
        assert_eq!(stage.remaining(&token).await, remaining);
        stage.redis.say::<()>(&["SCRIPT", "FLUSH"]);
    }
    stage.tells(&[true]).await;
}

#[tokio::test]
async fn tokens_are_unknown_after_redis_restarts_empty() {
    let mut stage = Stage::new(RedisServer::start(), PATIENT).await;
    let token = stage.gateway.site.token(&[]);
    assert_eq!(stage.remaining(&token).await, 59);
    stage.redis.restart();
    // Until the new connection stands, the old record and the local limiter serve.
    eventually("the token to be unknown", async || {
        let response = stage.get(&token).await;
        let status = response.status().as_u16();
        assert!([200, 401].contains(&status), "{status}");
        (status == 401).then_some(response)
    })
    .await;
    for _ in 0..10 {
        let response = stage.get(&token).await;
        assert_eq!(header(&response, "www-authenticate"), "Bearer realm=\"api\", error=\"invalid_token\"");
        assert_eq!(response.status(), 401);
    }
    let token = stage.gateway.site.token(&[]);
    assert_eq!(stage.remaining(&token).await, 59);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_costs_no_request_under_deny() {
    let stage = Stage::new(RedisServer::start(), ", deadline: 10s, on_failure: deny").await;
    let token = stage.gateway.site.token_with(&[], &["--limit", "minute=1000000/30m"]);
    // A connection that breaks when it has just been made is not replaced at once.
    eventually("connections of some age", async || {
        let list: String = stage.redis.say(&["CLIENT", "LIST"]);
        let ages = list
            .lines()
            .filter(|line| !line.contains("cmd=client"))
            .filter_map(|line| line.split(' ').find_map(|word| word.strip_prefix("age=")?.parse::<u64>().ok()));
        ages.min().is_some_and(|age| age >= 2).then_some(())
    })
    .await;
    let over = Arc::new(AtomicBool::new(false));
    let lanes: Vec<_> = (0..8)
        .map(|_| {
            let (client, over) = (http1(&stage.gateway), over.clone());
            let (url, secret) = (stage.gateway.url("/status/200"), token.secret.clone());
            tokio::spawn(async move {
                let mut statuses = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    statuses.push(client.get(&url).bearer_auth(&secret).send().await.unwrap().status());
                }
                statuses
            })
        })
        .collect();
    stage.gateway.access("/status/200", 100).await;
    let _: u64 = stage.redis.say(&["CLIENT", "KILL", "TYPE", "normal"]);
    stage.gateway.access("/status/200", 500).await;
    over.store(true, Ordering::Relaxed);
    for lane in lanes {
        let statuses = lane.await.unwrap();
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    }
}

#[tokio::test]
async fn an_outage_and_its_end_are_reported_in_one_line_each() {
    let mut stage = Stage::new(RedisServer::start(), ", deadline: 10s, on_failure: deny").await;
    let token = stage.gateway.site.token(&[]);
    assert_eq!(stage.get(&token).await.status(), 200);
    assert_eq!(stage.gateway.admin("/readyz").await.0, 200);
    stage.redis.kill();
    stage.is_up(0.0).await;
    eventually("every request to be refused", async || (stage.gateway.admin("/readyz").await.0 == 503).then_some(()))
        .await;
    for _ in 0..5 {
        unavailable(stage.get(&token).await).await;
    }
    stage.redis.restart();
    stage.is_up(1.0).await;
    let with = async |message: &str| {
        eventually(message, async || {
            let log = stage.gateway.log();
            let lines: Vec<Value> =
                log.into_iter().filter(|line| line["message"].as_str().unwrap_or_default().contains(message)).collect();
            (!lines.is_empty()).then_some(lines)
        })
        .await
    };
    // It kept nothing on its disk, which was to be expected.
    assert_eq!(with("Redis has come back without any token").await.len(), 1);
    assert_eq!(with("keeps nothing on disk").await.len(), 1);
    assert_eq!(with("store.redis.on_failure decides").await[0]["on_failure"], "deny");
    let mut answers = with("Redis answers").await.into_iter().filter(|line| line["message"] == "Redis answers");
    let recovery = answers.next_back().unwrap();
    assert_eq!(recovery["server"], format!("127.0.0.1:{}", stage.redis.port()));
    assert!(recovery["down_ms"].is_u64() && recovery["decided"].as_u64().unwrap() >= 1, "{recovery}");
    assert_eq!(recovery["on_failure"], "deny");
    assert_eq!(stage.gateway.admin("/readyz").await.0, 200);
}
