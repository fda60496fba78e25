//! Which endpoint gets a request: each balancing method, weights, backups, and keys that stay with their endpoint.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use futures_util::StreamExt;

use super::stage::{Service, Stage, count, urls};
use crate::support::client::http1;
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn round_robin_follows_weights_exactly_on_each_worker() {
    let (a, b, c) = (Service::start("a").await, Service::start("b").await, Service::start("c").await);
    let endpoints = format!("\"{}\", {{ url: \"{}\", weight: 3 }}, \"{}\"", a.url(), b.url(), c.url());
    let stage = Stage::on_one_worker(&endpoints, ", balance: round_robin");
    let names = stage.answerers(100).await;
    assert_eq!((count(&names, "a"), count(&names, "b"), count(&names, "c")), (20, 60, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn least_requests_spreads_idle_traffic_by_weight_and_avoids_slow_endpoints() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let endpoints = format!("\"{}\", {{ url: \"{}\", weight: 3 }}", a.url(), b.url());
    let stage = Stage::new(&endpoints, "", "");
    let names = stage.answerers(400).await;
    let heavy = count(&names, "b");
    assert!((250..350).contains(&heavy), "{heavy} of 400 to who has three quarters of the weight");

    // The heavy one gets slow: it is given at most what it has room for beside the other.
    b.script.delay.store(300, Ordering::SeqCst);
    let before = (a.asked(), b.asked());
    let asks = futures_util::stream::iter(0..300).map(|_| stage.get("/")).buffer_unordered(12);
    assert!(asks.all(|(status, _)| async move { status == 200 }).await);
    let (light, heavy) = (a.asked() - before.0, b.asked() - before.1);
    assert!(light > heavy, "{light} to the fast one, {heavy} to the slow one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_keeps_its_endpoint_and_only_keys_of_a_dead_one_move() {
    let mut services = Vec::new();
    for name in ["a", "b", "c", "d"] {
        services.push(Service::start(name).await);
    }
    let all: Vec<&Service> = services.iter().collect();
    let stage = Stage::before(&all, ", balance: { hash: { header: x-call-id } }, ejection: { time: 100ms }");
    let owners = async || {
        let mut owners = BTreeMap::new();
        for call in 0..80 {
            let request = stage.client.get(stage.gateway.url("/")).header("x-call-id", format!("call-{call}"));
            let (status, name) = stage.ask(request).await;
            assert_eq!(status, 200, "{name}");
            owners.insert(call, name);
        }
        owners
    };
    let whole = owners().await;
    assert_eq!(whole, owners().await);
    let share = |name: &str| whole.values().filter(|owner| *owner == name).count();
    assert!(["a", "b", "c", "d"].iter().all(|name| share(name) >= 5), "{whole:?}");

    let dead = services.remove(1).kill().await;
    let without = owners().await;
    for (call, owner) in &whole {
        if owner == "b" {
            assert_ne!(without[call], "b");
        } else {
            assert_eq!(&without[call], owner, "call-{call} has moved");
        }
    }
    let _revived = dead.revive().await;
    eventually("all keys to be back", async || (owners().await == whole).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_or_a_cookie_can_be_the_key() {
    let (a, b, c) = (Service::start("a").await, Service::start("b").await, Service::start("c").await);
    let stage = Stage::before(&[&a, &b, &c], ", balance: { hash: token }");
    let names = stage.answerers(30).await;
    assert!(names.iter().all(|name| *name == names[0]), "{names:?}");

    let stage = Stage::before(&[&a, &b, &c], ", balance: { hash: { cookie: sid } }");
    let mut owners = Vec::new();
    for sid in 0..12 {
        let ask = async || {
            let request = stage.client.get(stage.gateway.url("/")).header("cookie", format!("other=1; sid=s{sid}"));
            stage.ask(request).await.1
        };
        let owner = ask().await;
        assert_eq!(owner, ask().await);
        owners.push(owner);
    }
    assert!(owners.iter().any(|owner| *owner != owners[0]), "{owners:?}");
    // Without the cookie there is no key: everybody gets some.
    let names = stage.answerers(60).await;
    assert!(["a", "b", "c"].iter().all(|name| count(&names, name) > 0), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_serve_only_while_no_other_is_available() {
    let (a, b, spare) = (Service::start("a").await, Service::start("b").await, Service::start("spare").await);
    let endpoints = format!("{}, {{ url: \"{}\", backup: true }}", urls(&[&a, &b]), spare.url());
    let stage =
        Stage::new(&endpoints, ", ejection: { failures: 1, time: 200ms, max_time: 200ms, max_share: 100% }", "");
    stage.answerers(50).await;
    assert_eq!(spare.asked(), 0);
    let a = a.kill().await;
    stage.answerers(50).await;
    assert_eq!(spare.asked(), 0, "one is left");
    let _b = b.kill().await;
    stage.answerers(20).await;
    assert!(spare.asked() >= 20);
    let _a = a.revive().await;
    eventually("the first to serve again", async || (stage.get("/").await.1 == "a").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_returns_gets_few_requests_at_first() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let health = "health: { path: /healthz, interval: 100ms, healthy: 1, unhealthy: 1 }";
    let stage = Stage::before(&[&a, &b], &format!(", balance: round_robin, slow_start: 1h, {health}"));
    stage.answerers(20).await;
    assert!(b.asked() > 0, "at the start nobody is new");
    b.script.health.store(500, Ordering::SeqCst);
    eventually("b to be down", async || (stage.state(1).await == "down").then_some(())).await;
    b.script.health.store(204, Ordering::SeqCst);
    eventually("b to be up", async || (stage.state(1).await == "up").then_some(())).await;
    // A new connection, and so perhaps another worker; each of them gives it a tenth of a share.
    let stage = Stage { client: http1(&stage.gateway), ..stage };
    let names = stage.answerers(110).await;
    assert!((5..=15).contains(&count(&names, "b")), "{} of 110", count(&names, "b"));
}
