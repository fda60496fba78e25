//! Services that are replaced one after the other under load: no client notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::stage::{Service, Stage};
use crate::support::client::{builder, http1};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_loses_no_request() {
    let mut services = Vec::new();
    for name in ["a", "b", "c"] {
        services.push(Service::start(name).await);
    }
    let all: Vec<&Service> = services.iter().collect();
    // Services are killed with requests in flight too: on a slow machine these are a larger share than usual.
    let keys = ", ejection: { failures: 2, time: 200ms, max_time: 500ms }, retry: { min_per_second: 500 }, \
                health: { path: /healthz, interval: 200ms, unhealthy: 1, healthy: 1 }";
    let stage = Stage::before(&all, keys);
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|number| {
            // Both versions of HTTP.
            let client = if number % 2 == 0 { http1(&stage.gateway) } else { builder(&stage.gateway).build().unwrap() };
            let (url, secret) = (stage.gateway.url("/"), stage.token.secret.clone());
            let (stop, done) = (stop.clone(), done.clone());
            tokio::spawn(async move {
                let mut lost = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let response = client.get(&url).bearer_auth(&secret).send().await.unwrap();
                    let (status, text) = (response.status().as_u16(), response.text().await);
                    if status != 200 || text.is_err() {
                        lost.push(format!("{status} {text:?}"));
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                }
                lost
            })
        })
        .collect();
    let more = async |count: usize| {
        let from = done.load(Ordering::SeqCst);
        eventually("more requests", async || (done.load(Ordering::SeqCst) >= from + count).then_some(())).await;
    };
    for round in 0..2 {
        for place in 0..services.len() {
            more(50).await;
            let dead = services.remove(place).kill().await;
            more(50).await;
            services.insert(place, dead.revive().await);
            let before = services[place].asked();
            eventually(&format!("it to serve again in round {round}"), async || {
                (services[place].asked() > before).then_some(())
            })
            .await;
        }
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        let lost = client.await.unwrap();
        assert!(lost.is_empty(), "{} lost: {lost:?}", lost.len());
    }
}
