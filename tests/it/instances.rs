//! Three instances on one Redis: they share limits exactly, and a change of a token applies on all of them at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use reqwest::Client;

use crate::support::client::{get, header, http1, http2};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::redis::RedisServer;
use crate::support::upstream::Upstream;

/// Requests of one client at one time: over HTTP/1.1 each has a connection of its own, over HTTP/2 they share one.
const HTTP1_LANES: usize = 16;
const HTTP2_LANES: usize = 48;

/// One answer, as far as limits are concerned.
struct LimitAnswer {
    status: u16,
    limit: String,
    remaining: String,
    reset: u64,
    retry_after: String,
    body: String,
}

struct Stage {
    redis: RedisServer,
    upstream: Upstream,
    instances: Vec<Arc<Gateway>>,
}

impl Stage {
    /// Redis has all the time it needs and there is nobody to stand in for it: what is admitted, Redis has admitted.
    async fn new() -> Self {
        let redis = RedisServer::start();
        let upstream = Upstream::start().await;
        let site = Site::on_redis(&redis.url(), ", deadline: 10s, on_failure: deny", upstream.address, "");
        let instances = (0..3).map(|_| Arc::new(site.serve())).collect();
        Self { redis, upstream, instances }
    }

    fn site(&self) -> &Arc<Site> {
        &self.instances[0].site
    }

    /// Each instance with a client of either protocol and how many requests that one has under way.
    fn clients(&self) -> Vec<(Arc<Gateway>, Client, usize)> {
        let both = |gateway: &Arc<Gateway>| {
            [(gateway.clone(), http1(gateway), HTTP1_LANES), (gateway.clone(), http2(gateway), HTTP2_LANES)]
        };
        self.instances.iter().flat_map(both).collect()
    }

    /// Sends `total` requests over all instances and both protocols, many at one time. All begin together, on connections that
    /// stand already.
    async fn storm(&self, token: &Token, total: usize) -> Vec<LimitAnswer> {
        let clients = self.clients();
        let count: usize = clients.iter().map(|(_, _, lanes)| lanes).sum();
        let start = Arc::new(tokio::sync::Barrier::new(count));
        let mut lanes = tokio::task::JoinSet::new();
        for turn in 0..HTTP1_LANES.max(HTTP2_LANES) {
            for (gateway, client, _) in clients.iter().filter(|(_, _, width)| turn < *width) {
                let at = lanes.len();
                let share = total / count + usize::from(at < total % count);
                let (gateway, client, token, start) = (gateway.clone(), client.clone(), token.clone(), start.clone());
                lanes.spawn(async move {
                    let stranger = client.get(gateway.url("/")).send().await.unwrap();
                    assert_eq!(stranger.status(), 401);
                    drop(stranger);
                    start.wait().await;
                    let mut reported = Vec::with_capacity(share);
                    for _ in 0..share {
                        reported.push(ask(&client, &gateway, &token).await);
                    }
                    reported
                });
            }
        }
        let reported: Vec<LimitAnswer> = lanes.join_all().await.into_iter().flatten().collect();
        assert_eq!(reported.len(), total);
        reported
    }
}

async fn ask(client: &Client, gateway: &Gateway, token: &Token) -> LimitAnswer {
    let response = get(client, gateway, "/status/200", token).await;
    let reported = |name| header(&response, name).to_owned();
    LimitAnswer {
        status: response.status().as_u16(),
        limit: reported("x-ratelimit-limit"),
        remaining: reported("x-ratelimit-remaining"),
        reset: reported("x-ratelimit-reset").parse().unwrap_or(0),
        retry_after: reported("retry-after"),
        body: response.text().await.unwrap(),
    }
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Exactly `limit` were admitted, each with a remainder of its own; all others were told when to come back.
fn exactly(reported: &[LimitAnswer], limit: usize, window_s: u64, began: u64, name: &str) {
    let admitted: Vec<&LimitAnswer> = reported.iter().filter(|it| it.status == 200).collect();
    assert_eq!(admitted.len(), limit);
    let remaining: BTreeSet<usize> = admitted.iter().map(|it| it.remaining.parse().unwrap()).collect();
    assert_eq!(remaining, (0..limit).collect::<BTreeSet<_>>(), "each remainder stands on one answer");
    for it in reported {
        assert_eq!(it.limit, limit.to_string());
        let ends = began + window_s..=unix_s() + window_s + 1;
        assert!(ends.contains(&it.reset), "{} is not in {ends:?}", it.reset);
    }
    for it in reported.iter().filter(|it| it.status != 200) {
        assert_eq!((it.status, it.remaining.as_str()), (429, "0"));
        let wait: u64 = it.retry_after.parse().unwrap();
        assert!((1..=window_s).contains(&wait), "{wait}");
        assert!(it.body.contains("\"rate_limited\"") && it.body.contains(name), "{}", it.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_instances_together_admit_exactly_sixty_a_minute() {
    let stage = Stage::new().await;
    // A window that no machine is too slow for.
    let token = stage.site().token_with(&[], &["--limit", "minute=60/30m"]);
    let began = unix_s();
    let reported = stage.storm(&token, 600).await;
    exactly(&reported, 60, 1_800, began, "minute");
    assert_eq!(stage.upstream.seen().len(), 60);
    let mut sharing = 0;
    for gateway in &stage.instances {
        let admitted = gateway.metric(r#"callgate_decisions_total{outcome="admitted",source="redis"}"#).await.unwrap();
        sharing += usize::from(admitted > 0.0);
        assert_eq!(gateway.metric(r#"callgate_decisions_total{outcome="admitted",source="local"}"#).await, Some(0.0));
    }
    assert!(sharing > 1, "one instance alone was asked: nothing was shared");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_instances_together_admit_exactly_a_thousand_an_hour() {
    let stage = Stage::new().await;
    // Both windows are asked; the minute's never bites.
    let token = stage.site().token_with(&[], &["--limit", "minute=100000/1m"]);
    let began = unix_s();
    let reported = stage.storm(&token, 3_000).await;
    exactly(&reported, 1_000, 3_600, began, "hour");
    assert_eq!(stage.upstream.seen().len(), 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_is_refused_on_every_instance_from_the_next_request() {
    let stage = Stage::new().await;
    let token = stage.site().token_with(&[], &["--limit", "minute=1000000/1m", "--limit", "hour=1000000/1h"]);
    let over = Arc::new(AtomicBool::new(false));
    let mut lanes = tokio::task::JoinSet::new();
    for (gateway, client, _) in stage.clients() {
        for _ in 0..3 {
            let (gateway, client, token, over) = (gateway.clone(), client.clone(), token.clone(), over.clone());
            lanes.spawn(async move {
                let (mut answers, mut later) = (Vec::new(), 0);
                // Each goes on until it has asked often enough after the revocation.
                while later < 10 {
                    later += usize::from(over.load(Ordering::Relaxed));
                    let sent = Instant::now();
                    answers.push((sent, get(&client, &gateway, "/status/200", &token).await.status().as_u16()));
                }
                answers
            });
        }
    }
    // The token is in use everywhere, and so in every instance's memory.
    eventually("every instance to be busy with the token", async || {
        for gateway in &stage.instances {
            let admitted = gateway.metric(r#"callgate_decisions_total{outcome="admitted",source="redis"}"#).await;
            if admitted < Some(50.0) {
                return None;
            }
        }
        Some(())
    })
    .await;
    let (site, id) = (stage.site().clone(), token.id.clone());
    let revoked = tokio::task::spawn_blocking(move || site.run(&["token", "revoke", "--yes", &id])).await.unwrap();
    let returned = Instant::now();
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    over.store(true, Ordering::Relaxed);
    for answers in lanes.join_all().await {
        let (before, after): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(sent, _)| *sent < returned);
        assert!(before.iter().any(|(_, status)| *status == 200), "the lane was admitted before");
        assert!(after.len() > 5, "{} requests after the revocation", after.len());
        // A client with too many failures gets 429 instead.
        let admitted = after.iter().filter(|(_, status)| ![401, 429].contains(status)).count();
        assert_eq!(admitted, 0, "of {} requests sent after the revocation", after.len());
    }
}

#[tokio::test]
async fn a_new_token_works_on_every_instance_at_once() {
    let stage = Stage::new().await;
    let clients: Vec<_> = stage.instances.iter().map(|gateway| (gateway, http2(gateway))).collect();
    for round in 0..5 {
        let token = stage.site().token(&[]);
        for (count, (gateway, client)) in clients.iter().enumerate() {
            let reported = ask(client, gateway, &token).await;
            assert_eq!((reported.status, reported.remaining), (200, (59 - count).to_string()), "round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_on_a_limited_token_does_not_reach_redis() {
    let stage = Stage::new().await;
    let token = stage.site().token_with(&[], &["--limit", "minute=60/30m"]);
    let (gateway, client) = (&stage.instances[0], http2(&stage.instances[0]));
    for _ in 0..60 {
        assert_eq!(ask(&client, gateway, &token).await.status, 200);
    }
    let before = stage.redis.calls("evalsha");
    let started = Instant::now();
    let mut lanes = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (gateway, client, token) = (gateway.clone(), client.clone(), token.clone());
        lanes.spawn(async move {
            for _ in 0..500 {
                assert_eq!(ask(&client, &gateway, &token).await.status, 429);
            }
        });
    }
    lanes.join_all().await;
    // A refusal is remembered for a second; when that is over, those under way at this moment ask together.
    let (asked, seconds) = (stage.redis.calls("evalsha") - before, started.elapsed().as_secs());
    // Each instance has a heartbeat every three seconds.
    let heartbeats = stage.instances.len() as u64 * (seconds / 3 + 1);
    assert!(asked <= 4 * (seconds + 1) + heartbeats, "Redis was asked {asked} times in {seconds} s");
    assert_eq!(stage.upstream.seen().len(), 60);
}
