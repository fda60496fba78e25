//! Retries: only where nothing can happen twice, within the budget, and as one request.

use std::sync::atomic::Ordering;

use futures_util::StreamExt;

use super::stage::{Service, Stage, count, urls};
use crate::support::calls::{call, switchboard};
use crate::support::client::header;

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_connection_loses_no_request_of_any_method() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let stage = Stage::on_one_worker(
        &urls(&[&a, &b]),
        ", balance: round_robin, ejection: none, retry: { min_per_second: 1000 }",
    );
    let _dead = a.kill().await;
    for _ in 0..20 {
        let post = stage.client.post(stage.gateway.url("/")).body("once");
        assert_eq!(stage.ask(post).await, (200, "b".to_owned()));
    }
    assert_eq!(b.asked(), 20);
    assert_eq!(stage.metric("retries_total", "on=\"connect\",").await, 10.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_may_have_been_processed_are_retried_only_if_idempotent() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let stage = Stage::on_one_worker(
        &urls(&[&a, &b]),
        ", balance: round_robin, ejection: none, retry: { min_per_second: 1000 }",
    );
    a.script.breaks.store(true, Ordering::SeqCst);
    let names = stage.answerers(20).await;
    assert_eq!((count(&names, "b"), a.asked(), b.asked()), (20, 10, 20));
    assert_eq!(stage.metric("retries_total", "on=\"broken\",").await, 10.0);

    let (mut failed, before) = (0, a.asked() + b.asked());
    for round in 0..20 {
        let post = stage.client.post(stage.gateway.url("/"));
        // A body, or none: a POST is a POST. A PUT with a body can't be sent again either.
        let request = match round % 4 {
            0 | 1 => post.body("once"),
            2 => post,
            _ => stage.client.put(stage.gateway.url("/")).body("once"),
        };
        let (status, _) = stage.ask(request).await;
        assert!(status == 200 || status == 502);
        failed += usize::from(status == 502);
    }
    assert_eq!(a.asked() + b.asked() - before, 20, "each was sent once");
    assert_eq!(failed, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_the_same_request_and_counts_once() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let stage = Stage::on_one_worker(&urls(&[&a, &b]), ", balance: round_robin, ejection: none");
    a.script.breaks.store(true, Ordering::SeqCst);
    let mut left = Vec::new();
    for _ in 0..4 {
        let request = stage.client.get(stage.gateway.url("/")).bearer_auth(&stage.token.secret);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "x-saw"), header(&response, "x-request-id"));
        left.push(header(&response, "x-ratelimit-remaining").parse::<u32>().unwrap());
    }
    assert!(a.asked() >= 2, "some were tried twice");
    assert!(left.windows(2).all(|pair| pair[0] == pair[1] + 1), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_503_is_retried_only_where_configured() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    a.script.status.store(503, Ordering::SeqCst);
    let common = ", balance: round_robin, ejection: none";
    let stage = Stage::on_one_worker(&urls(&[&a, &b]), common);
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(stage.get("/").await.0.to_string());
    }
    assert_eq!(count(&statuses, "503"), 5, "{statuses:?}");

    let stage = Stage::on_one_worker(&urls(&[&a, &b]), &format!("{common}, retry: {{ on: [connect, unavailable] }}"));
    let names = stage.answerers(10).await;
    assert_eq!(count(&names, "b"), 10);
    let before = a.asked() + b.asked();
    for _ in 0..10 {
        stage.ask(stage.client.post(stage.gateway.url("/")).body("once")).await;
    }
    assert_eq!(a.asked() + b.asked() - before, 10);
    // When no endpoint has a better answer, the first one is passed on.
    b.script.status.store(503, Ordering::SeqCst);
    let (status, name) = stage.get("/").await;
    assert!(status == 503 && name.len() == 1, "{status} {name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_everything_fails_the_budget_bounds_retries() {
    let (a, b, c) = (Service::start("a").await, Service::start("b").await, Service::start("c").await);
    let services = [&a, &b, &c];
    let stage = Stage::before(&services, ", ejection: none, retry: { min_per_second: 0 }");
    for service in services {
        service.script.breaks.store(true, Ordering::SeqCst);
    }
    let asks = futures_util::stream::iter(0..500).map(|_| stage.get("/")).buffer_unordered(16);
    assert!(asks.all(|(status, _)| async move { status == 502 }).await);
    let sent = a.asked() + b.asked() + c.asked();
    assert!((501..=600).contains(&sent), "500 requests became {sent}");
    assert!(stage.metric("retries_exhausted_total", "").await >= 300.0);
    let retried = stage.metric("retries_total", "on=\"broken\",").await;
    assert_eq!(retried, (sent - 500) as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_bounded_and_can_be_switched_off() {
    let mut services = Vec::new();
    for name in ["a", "b", "c", "d"] {
        services.push(Service::start(name).await);
        services.last().unwrap().script.breaks.store(true, Ordering::SeqCst);
    }
    let all: Vec<&Service> = services.iter().collect();
    for (keys, sent) in
        [("", 3), (", retry: { attempts: 1 }", 1), (", retry: { on: [] }", 1), (", retry: { attempts: 4 }", 4)]
    {
        let stage = Stage::before(&all, &format!(", ejection: none{keys}"));
        let before: usize = services.iter().map(Service::asked).sum();
        assert_eq!(stage.get("/").await.0, 502);
        assert_eq!(services.iter().map(Service::asked).sum::<usize>() - before, sent, "{keys}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_retried_only_when_there_was_no_connection() {
    let (dead, breaks) = (Service::start("dead").await, Service::start("breaks").await);
    let board = switchboard().await;
    let stage = Stage::new(
        &format!("\"{}\", \"http://{board}\"", dead.url()),
        ", balance: round_robin, ejection: none, retry: { min_per_second: 1000 }",
        "",
    );
    let _dead = dead.kill().await;
    let mut open = Vec::new();
    for _ in 0..6 {
        open.push(call(&stage.gateway, &stage.token, "/call").await.expect("a call"));
    }
    breaks.script.breaks.store(true, Ordering::SeqCst);
    let stage =
        Stage::new(&format!("\"{}\", \"http://{board}\"", breaks.url()), ", balance: round_robin, ejection: none", "");
    let mut refused = 0;
    for _ in 0..6 {
        refused += usize::from(call(&stage.gateway, &stage.token, "/call").await.is_err());
    }
    assert_eq!(refused, breaks.asked(), "a request that was sent is not sent again");
    assert!(refused > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_the_whole_answer_bounds_all_attempts() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    for service in [&a, &b] {
        service.script.delay.store(4_000, Ordering::SeqCst);
        service.script.status.store(503, Ordering::SeqCst);
    }
    let endpoints = urls(&[&a, &b]);
    let stage = Stage::new(&endpoints, ", ejection: none, retry: { on: [unavailable] }", ", timeout: 6s");
    let (status, text) = stage.get("/").await;
    assert_eq!(status, 504, "{text}");
    assert!(text.contains("gateway_timeout"));
    assert_eq!(a.asked() + b.asked(), 2, "the second attempt was cut");
}
