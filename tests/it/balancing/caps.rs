//! The cap on the requests of an upstream, and the queue for it.

use std::sync::atomic::Ordering;

use super::stage::{Service, Stage};
use crate::support::calls::{call, switchboard};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_cap_wait_in_order_and_beyond_the_queue_are_rejected() {
    let a = Service::start("a").await;
    let stage = Stage::before(&[&a], ", max_requests: 2, max_waiting: 3, max_wait: 1m");
    let held: Vec<_> = (0..2).map(|_| stage.send("/hold")).collect();
    eventually("two in flight", async || (a.script.held.load(Ordering::SeqCst) == 2).then_some(())).await;
    let mut queue = Vec::new();
    for place in 1..=3 {
        queue.push(stage.send("/hold"));
        stage.waiting(place).await;
    }
    assert_eq!(stage.send("/hold").await.unwrap(), (503, "1".to_owned()));
    assert_eq!(
        stage.gateway.metric("callgate_upstream_rejections_total{upstream=\"up\",why=\"queue_full\"}").await.unwrap(),
        1.0
    );
    assert_eq!(stage.report().await["in_flight"], 2);

    // One permit at a time: first come, first served.
    for done in 0..3 {
        a.script.go.add_permits(1);
        stage.waiting(2 - done).await;
        assert_eq!(a.script.held.load(Ordering::SeqCst).max(2), 2, "never more than two");
    }
    a.script.go.add_permits(2);
    for answer in held.into_iter().chain(queue) {
        assert_eq!(answer.await.unwrap().0, 200);
    }
    eventually("all places to be free", async || (stage.report().await["in_flight"] == 0).then_some(())).await;
    assert_eq!(a.asked(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_at_max_wait_or_when_the_client_leaves() {
    let a = Service::start("a").await;
    let stage = Stage::before(&[&a], ", max_requests: 1, max_waiting: 10, max_wait: 300ms");
    let held = stage.send("/hold");
    eventually("one in flight", async || (a.script.held.load(Ordering::SeqCst) == 1).then_some(())).await;
    assert_eq!(stage.send("/").await.unwrap(), (503, "1".to_owned()));
    let lines = stage.gateway.access("/", 1).await;
    assert_eq!(lines[0]["code"], "overloaded");
    assert!(lines[0]["error"].as_str().unwrap().contains("max_requests"), "{}", lines[0]);

    let stage = Stage::before(&[&a], ", max_requests: 1, max_waiting: 10, max_wait: 1m");
    a.script.go.add_permits(1);
    assert_eq!(held.await.unwrap().0, 200);
    let held = stage.send("/hold");
    eventually("one in flight", async || (a.script.held.load(Ordering::SeqCst) == 1).then_some(())).await;
    let gone = stage.send("/");
    stage.waiting(1).await;
    gone.abort();
    stage.waiting(0).await;
    a.script.go.add_permits(1);
    assert_eq!(held.await.unwrap().0, 200);
    assert_eq!(stage.send("/").await.unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_the_whole_answer_bounds_the_wait() {
    let board = switchboard().await;
    let stage = Stage::new(&format!("\"http://{board}\""), ", max_requests: 1, max_wait: 1m", ", timeout: 500ms");
    // A call has no such bound.
    let open = call(&stage.gateway, &stage.token, "/call").await.expect("a call");
    // The client would not wait for `max_wait`.
    assert_eq!(stage.send("/").await.unwrap().0, 504);
    stage.waiting(0).await;
    assert_eq!(stage.metric("failures_total", "kind=\"timeout\",").await, 0.0, "no endpoint got the request");
    drop(open);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_keeps_its_permit_until_it_ends() {
    let board = switchboard().await;
    let stage = Stage::new(&format!("\"http://{board}\""), ", max_requests: 1, max_wait: 100ms", "");
    let open = call(&stage.gateway, &stage.token, "/call").await.expect("a call");
    assert_eq!(stage.report().await["in_flight"], 1);
    assert_eq!(stage.get("/").await.0, 503);
    drop(open);
    eventually("its place", async || (stage.get("/").await.0 == 200).then_some(())).await;
}
