//! A primary named by sentinels: failover under load, and a replaced primary that comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::{FromRedisValue, Value};

use super::{admitted, instance, issue, open, store, trouble};
use crate::support::client::http1;
use crate::support::eventually;
use crate::support::gateway::Site;
use crate::support::topology::Watched;
use crate::support::upstream::Upstream;

/// Everything behind these sentinels, with so many requests an hour. `redis`: more keys of the store.
fn site(watched: &Watched, upstream: &Upstream, redis: &str, limit: usize) -> Arc<Site> {
    Site::new(&format!(
        "store: {{ redis: {{ sentinel: {}, {redis} }} }}\n\
         plans: {{ standard: {{ limits: {{ hour: {limit}/1h }} }} }}\n\
         routes:\n  - {{ path: \"/{{*rest}}\", upstream: up }}\n\
         upstreams: {{ up: {{ endpoints: [\"http://{}\"] }} }}",
        watched.config(),
        upstream.address
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_under_load_loses_no_answer() {
    let mut watched = Watched::start();
    let upstream = Upstream::start().await;
    let site = site(&watched, &upstream, "deadline: 500ms, on_failure: local", 1_000_000);
    let token = site.token(&[]);
    let gateway = site.serve();
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (client, stop) = (http1(&gateway), stop.clone());
            let (url, secret) = (format!("https://{}/echo", gateway.https), token.secret.clone());
            tokio::spawn(async move {
                let mut statuses = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    statuses.push(client.get(&url).bearer_auth(&secret).send().await.unwrap().status());
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                statuses
            })
        })
        .collect();
    gateway.access("/echo", 100).await;
    watched.servers[0].kill();
    let source = async |wanted: &str| {
        let last = gateway.access("/echo", 1).await.pop();
        last.filter(|line| line.to_string().contains(&format!("\"{wanted}\""))).map(drop)
    };
    eventually("the outage", async || source("local").await).await;
    tokio::task::block_in_place(|| watched.fail_over(1));
    eventually("the new primary", async || source("redis").await).await;
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        let statuses = caller.await.unwrap();
        assert!(!statuses.is_empty() && statuses.iter().all(|status| *status == 200), "{statuses:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_primary_gets_no_writes() {
    let watched = Watched::start();
    let store = store(&format!("sentinel: {}", watched.config()));
    let (redis, health) = open(&store).await;
    let port = async || {
        let answer = redis.call(redis::cmd("CONFIG").arg("GET").arg("port")).await.ok()?;
        Vec::<String>::from_redis_value(answer).ok()?.pop()?.parse::<u16>().ok()
    };
    let [old, new] = [0, 1].map(|index| watched.servers[index].port());
    assert_eq!(port().await, Some(old));
    watched.servers[0].pause();
    tokio::task::block_in_place(|| watched.fail_over(1));
    eventually("the new primary", async || port().await.filter(|port| *port == new)).await;
    watched.servers[0].resume();
    // The old primary acts as a primary until the sentinels demote it.
    let (limiter, _) = instance(&store).await;
    issue(&redis, "alpha").await;
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        assert_eq!(port().await, Some(new));
        let write = redis.call(redis::cmd("SET").arg("here").arg("1")).await;
        assert!(matches!(write, Ok(Value::Okay)), "{write:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(admitted(&[limiter], "alpha", 60, 100).await, 60);
    assert_eq!(health.trouble(), None);

    let reported = trouble(&format!("sentinel: {}", watched.config().replace("mymaster", "another"))).await;
    assert!(reported.contains("the sentinels know no service of the name another"), "{reported}");
    let reported = trouble("sentinel: { service: mymaster, nodes: [\"redis://127.0.0.1:1\"] }").await;
    assert!(reported.contains("no sentinel answers"), "{reported}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover_loses_no_admission() {
    const LIMIT: usize = 3_000;
    let watched = Watched::start();
    let upstream = Upstream::start().await;
    let site = site(&watched, &upstream, "deadline: 10s", LIMIT);
    let token = site.token(&[]);
    let gateway = site.serve();
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (client, url, secret) = (http1(&gateway), gateway.url("/echo"), token.secret.clone());
            tokio::spawn(async move {
                let mut admitted = 0;
                while client.get(&url).bearer_auth(&secret).send().await.unwrap().status() == 200 {
                    admitted += 1;
                }
                admitted
            })
        })
        .collect();
    gateway.access("/echo", 50).await;
    tokio::task::block_in_place(|| watched.fail_over(1));
    let mut admitted = 0;
    for caller in callers {
        admitted += caller.await.unwrap();
    }
    assert!(admitted <= LIMIT, "{admitted} were admitted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_that_no_replica_has_is_reported() {
    let watched = Watched::start();
    let site = Site::new(&format!(
        "store: {{ redis: {{ sentinel: {} }} }}\nroutes: [{{ path: /a, upstream: up }}]\n\
         upstreams: {{ up: {{ endpoints: [\"http://127.0.0.1:9\"] }} }}",
        watched.config()
    ));
    let token = site.token(&[]);
    let gateway = site.serve();
    let remarks = || {
        let output = site.run(&["token", "revoke", "--yes", &token.id]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let replicated = async || {
        let url = format!("http://{}/api/tokens/{}/revoke", gateway.admin, token.id);
        let request = reqwest::Client::new().post(url).header("x-callgate-admin", "1");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.headers()["callgate-replicated"].to_str().unwrap().to_owned()
    };
    watched.servers[1].pause();
    assert!(remarks().contains("no replica of Redis has this change"), "{}", remarks());
    assert_eq!(replicated().await, "false");
    watched.servers[1].resume();
    eventually("the replica to follow", async || remarks().is_empty().then_some(())).await;
    assert_eq!(replicated().await, "true");
}
