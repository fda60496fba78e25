//! More requests than connections: they wait for one, in order, for at most max_wait.

use std::sync::atomic::Ordering;

use super::stage::{Service, Stage};
use crate::support::calls::{call, switchboard};
use crate::support::client::http1;
use crate::support::eventually;
use crate::support::upstream::Upstream;

async fn held(service: &Service, count: usize) {
    let held = async || (service.script.held.load(Ordering::SeqCst) == count).then_some(());
    eventually(&format!("{count} to be in flight"), held).await;
}

fn one_worker(services: &[&Service], keys: &str) -> Stage {
    Stage::on_one_worker(&super::stage::urls(services), keys)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_wait_for_a_connection_in_order() {
    let a = Service::start("a").await;
    // The clients' connections are spread over the workers.
    let keys = ", max_connections: 1, max_waiting: 9, max_wait: 1m";
    let stage = Stage::on_workers(4, &super::stage::urls(&[&a]), keys);
    let mut queue = vec![stage.send("/hold")];
    held(&a, 1).await;
    for place in 1..=9 {
        queue.push(stage.send("/hold"));
        stage.waiting(place).await;
    }
    assert_eq!(stage.send("/hold").await.unwrap(), (503, "1".to_owned()));
    let line = stage.gateway.access("/hold", 1).await.remove(0);
    assert!(line["error"].as_str().unwrap().contains("(max_connections)"), "{line}");
    let rejections = "callgate_upstream_rejections_total{upstream=\"up\",why=\"queue_full\"}";
    assert_eq!(stage.gateway.metric(rejections).await, Some(1.0));
    for left in (0..9).rev().chain([0]) {
        a.script.go.add_permits(1);
        let first = queue.remove(0);
        assert_eq!(first.await.unwrap().0, 200);
        stage.waiting(left).await;
    }
    assert_eq!((a.asked(), a.connections()), (10, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_a_connection_ends_at_max_wait_or_when_the_client_leaves() {
    let a = Service::start("a").await;
    let stage = one_worker(&[&a], ", max_connections: 1, max_wait: 300ms");
    let first = stage.send("/hold");
    held(&a, 1).await;
    assert_eq!(stage.send("/").await.unwrap(), (503, "1".to_owned()));
    let line = stage.gateway.access("/", 1).await.remove(0);
    assert_eq!(line["code"], "overloaded");
    assert_eq!(
        line["error"],
        "up has as many connections as allowed (max_connections), and none was free for 300ms (max_wait)"
    );
    a.script.go.add_permits(1);
    assert_eq!(first.await.unwrap().0, 200);

    let stage = one_worker(&[&a], ", max_connections: 1, max_wait: 1m");
    let first = stage.send("/hold");
    held(&a, 1).await;
    let gone = stage.send("/");
    stage.waiting(1).await;
    let last = stage.send("/");
    stage.waiting(2).await;
    gone.abort();
    stage.waiting(1).await;
    a.script.go.add_permits(1);
    assert_eq!((first.await.unwrap().0, last.await.unwrap().0), (200, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_uses_as_many_connections_as_allowed() {
    for (workers, streams, protocol) in
        [(1, None, "http1"), (1, Some(3), "http2"), (4, None, "http1"), (4, Some(3), "http2")]
    {
        let upstream = match streams {
            None => Upstream::start().await,
            Some(streams) => Upstream::http2(streams).await,
        };
        let keys = format!(", protocol: {protocol}, max_connections: 2, max_wait: 1m");
        let stage = Stage::on_workers(workers, &format!("\"http://{}\"", upstream.address), &keys);
        let answers = (0..60).map(|_| stage.send("/slow/20"));
        for answer in futures_util::future::join_all(answers).await {
            assert_eq!(answer.unwrap().0, 200, "{protocol}");
        }
        assert_eq!(upstream.connections(), 2, "{workers} {protocol}");
        assert_eq!(stage.report().await["waiting"], 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_request_goes_to_any_endpoint_with_room_that_is_not_ejected() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    b.script.health.store(500, Ordering::SeqCst);
    let health = ", health: { path: /healthz, interval: 100ms, healthy: 1, unhealthy: 1 }";
    let stage = one_worker(&[&a, &b], &format!("{health}, max_connections: 1, max_wait: 1m"));
    eventually("b to be down", async || (stage.state(1).await == "down").then_some(())).await;
    let first = stage.send("/hold");
    held(&a, 1).await;
    let second = stage.send("/");
    stage.waiting(1).await;
    assert_eq!(b.asked(), 0, "who is not well gets nothing because others are busy");
    b.script.health.store(200, Ordering::SeqCst);
    assert_eq!(second.await.unwrap().0, 200);
    assert_eq!((a.asked(), b.asked()), (1, 1));
    a.script.go.add_permits(1);
    assert_eq!(first.await.unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_keeps_its_connection_until_it_ends() {
    let board = switchboard().await;
    let stage = Stage::on_one_worker(&format!("\"http://{board}\""), ", max_connections: 1, max_wait: 1m");
    let open = call(&stage.gateway, &stage.token, "/call").await.expect("a call");
    let second = stage.send("/");
    stage.waiting(1).await;
    drop(open);
    assert_eq!(second.await.unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_connection_does_not_count() {
    let upstream = Upstream::http2(10).await;
    let keys = ", protocol: http2, max_connections: 1, max_waiting: 0, max_lifetime: 1s";
    let stage = Stage::on_one_worker(&format!("\"http://{}\"", upstream.address), keys);
    eventually("a third connection", async || {
        assert_eq!(stage.send("/echo").await.unwrap().0, 200);
        (upstream.connections() > 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_event_streams_leave_connections_to_requests() {
    let board = switchboard().await;
    let keys = ", max_connections: 3, max_waiting: 1, max_wait: 100ms";
    let stage = Stage::new(&format!("\"http://{board}\""), keys, "");
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(call(&stage.gateway, &stage.token, "/call").await.expect("a call"));
    }
    let refused = call(&stage.gateway, &stage.token, "/call").await.expect_err("a call too many");
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    let line = stage.gateway.access("/call", 1).await.remove(0);
    assert_eq!(line["error"], "up has as many calls as allowed (max_calls), and none was free for 100ms (max_wait)");
    assert_eq!(stage.send("/").await.unwrap().0, 200);
    drop(open.pop());
    eventually("room for a call", async || call(&stage.gateway, &stage.token, "/call").await.ok()).await;

    for accept in ["text/event-stream", "*/*"] {
        let a = Service::start("a").await;
        a.script.has_events.store(true, Ordering::SeqCst);
        a.script.halves.store(true, Ordering::SeqCst);
        let stage = Stage::before(&[&a], keys);
        let listen = async || {
            let request = stage.client.get(stage.gateway.url("/events")).header("accept", accept);
            request.bearer_auth(&stage.token.secret).send().await.unwrap()
        };
        let streams = [listen().await, listen().await];
        assert!(streams.iter().all(|stream| stream.status() == 200), "{accept}");
        assert_eq!(listen().await.status(), 503, "{accept}");
        let line = stage.gateway.access("/events", 1).await.remove(0);
        assert!(line["error"].as_str().unwrap().contains("(max_calls)"), "{line}");
        a.script.has_events.store(false, Ordering::SeqCst);
        a.script.halves.store(false, Ordering::SeqCst);
        assert_eq!(stage.send("/").await.unwrap().0, 200, "{accept}");
        drop(streams);
        a.script.has_events.store(true, Ordering::SeqCst);
        a.script.halves.store(true, Ordering::SeqCst);
        eventually("room for a stream", async || (listen().await.status() == 200).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_uses_the_connections_that_another_keeps() {
    for (streams, protocol) in [(None, "http1"), (Some(3), "http2")] {
        let upstream = match streams {
            None => Upstream::start().await,
            Some(streams) => Upstream::http2(streams).await,
        };
        let keys = format!(", protocol: {protocol}, max_connections: 1, max_wait: 1m");
        let stage = Stage::on_workers(4, &format!("\"http://{}\"", upstream.address), &keys);
        // Each over a connection of its own, most likely to another worker.
        for _ in 0..12 {
            let client = http1(&stage.gateway);
            // To its end: else the gateway closes the connection.
            assert_eq!(stage.ask(client.get(stage.gateway.url("/echo"))).await.0, 200, "{protocol}");
        }
        assert_eq!(upstream.connections(), 1, "{protocol}");
    }
}
