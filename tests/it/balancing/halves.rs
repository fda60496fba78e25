//! Answers that break off after their head: which side is at fault, and what is counted.

use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::stage::{Service, Stage};
use crate::support::client::{builder, http1, raw, read_to_end};
use crate::support::eventually;

async fn bad_answers(stage: &Stage) -> f64 {
    stage.metric("failures_total", "kind=\"bad_answer\",").await
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_that_break_off_eject_the_endpoint() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    a.script.halves.store(true, Ordering::SeqCst);
    let stage = Stage::before(&[&a, &b], ", ejection: { failures: 3, time: 1h, max_time: 1h }");
    let mut broken = 0;
    eventually("an ejection", async || {
        let request = stage.client.get(stage.gateway.url("/")).bearer_auth(&stage.token.secret);
        let mut response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        if response.chunk().await.unwrap().unwrap() == "half" {
            // Not before: a head that is lost with the rest is no answer at all.
            a.script.go.add_permits(1);
            assert!(response.text().await.is_err());
            broken += 1;
        }
        (stage.state(0).await == "ejected").then_some(())
    })
    .await;
    assert_eq!((broken, a.asked(), bad_answers(&stage).await), (3, 3, 3.0));
    assert_eq!(stage.log_lines("ejected for")[0]["why"], "answer");
    let lines = stage.gateway.access("/", 3).await;
    let cut = lines.iter().filter(|line| line["cut"] == true);
    assert_eq!(cut.count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_disconnects_ejects_no_endpoint() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    for service in [&a, &b] {
        service.script.halves.store(true, Ordering::SeqCst);
    }
    let stage = Stage::before(&[&a, &b], ", ejection: { failures: 1, time: 1h, max_time: 1h }");
    for round in 0..10 {
        let client = if round % 2 == 0 { http1(&stage.gateway) } else { builder(&stage.gateway).build().unwrap() };
        let request = client.get(stage.gateway.url("/")).bearer_auth(&stage.token.secret);
        let mut response = request.send().await.unwrap();
        assert_eq!(response.chunk().await.unwrap().unwrap(), "half");
        drop(response);
    }
    assert!(stage.gateway.access("/", 10).await.iter().all(|line| line["cut"] == true));
    eventually("all to be over", async || (stage.report().await["in_flight"] == 0).then_some(())).await;
    assert_eq!((stage.state(0).await, stage.state(1).await), ("up".to_owned(), "up".to_owned()));
    assert_eq!(bad_answers(&stage).await, 0.0);
}

/// Answers half a body before it has read the request's, and nothing more.
async fn eager() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut received = vec![0; 64 * 1024];
                let _ = socket.read(&mut received).await;
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await;
                while socket.read(&mut received).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_ends_with_the_upload_is_the_clients_failure() {
    let address = eager().await;
    let ejection = ", ejection: { failures: 1, time: 1h, max_time: 1h }";
    let endpoints = format!("\"http://{address}\", \"http://localhost:{}\"", address.port());
    let stage = Stage::new(&endpoints, ejection, ", max_body: 1KB");
    let mut stream = raw(&stage.gateway, "http/1.1").await;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n",
        stage.token.secret
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    while !received.ends_with(b"half\r\n") && !received.ends_with(b"half") {
        assert!(stream.read_buf(&mut received).await.unwrap() > 0, "{}", String::from_utf8_lossy(&received));
    }
    stream.write_all(format!("{:x}\r\n{}\r\n", 2000, "x".repeat(2000)).as_bytes()).await.unwrap();
    read_to_end(&mut stream).await;
    assert_eq!(stage.gateway.access("/", 1).await[0]["cut"], true);
    assert_eq!(bad_answers(&stage).await, 0.0);
    assert_eq!((stage.state(0).await, stage.state(1).await), ("up".to_owned(), "up".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_answer_ejects_and_a_silent_stream_does_not() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    a.script.halves.store(true, Ordering::SeqCst);
    let keys = ", idle_timeout: 1s, ejection: { failures: 2, time: 1h, max_time: 1h }";
    let stage = Stage::before(&[&a, &b], keys);
    eventually("an ejection", async || {
        let request = stage.client.get(stage.gateway.url("/")).bearer_auth(&stage.token.secret);
        let _ = request.send().await.unwrap().text().await;
        (stage.state(0).await == "ejected").then_some(())
    })
    .await;
    assert_eq!((a.asked(), bad_answers(&stage).await), (2, 2.0));

    for service in [&a, &b] {
        service.script.halves.store(true, Ordering::SeqCst);
        service.script.has_events.store(true, Ordering::SeqCst);
    }
    let endpoints = super::stage::urls(&[&a, &b]);
    let stage = Stage::new(&endpoints, ", ejection: { failures: 1 }", ", call: { idle_timeout: 1s }");
    let request = stage.client.get(stage.gateway.url("/")).bearer_auth(&stage.token.secret);
    assert!(request.send().await.unwrap().text().await.is_err());
    let line = stage.gateway.access("/", 1).await.remove(0);
    assert!(line["error"].as_str().unwrap().contains("no progress"), "{line}");
    assert_eq!(
        (bad_answers(&stage).await, stage.state(0).await, stage.state(1).await),
        (0.0, "up".into(), "up".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_of_attempts_retries_and_failures_agree() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    a.script.breaks.store(true, Ordering::SeqCst);
    let stage = Stage::before(&[&a, &b], ", balance: round_robin, ejection: none, retry: { min_per_second: 1000 }");
    stage.answerers(20).await;
    let dead = b.kill().await;
    // One is dead and the other breaks: both are tried.
    let (status, _) = stage.get("/lost").await;
    assert_eq!(status, 502);
    let _b = dead.revive().await;
    let lines = stage.gateway.access("/", 20).await;
    let twice = lines.iter().filter(|line| line["attempts"] == 2).count();
    assert!(lines.iter().all(|line| line["attempts"] == 2 || line["attempts"].is_null()));
    assert_eq!(stage.gateway.access("/lost", 1).await[0]["attempts"], 2);
    let failures =
        async |kind: &str| stage.metric("failures_total", &format!("kind=\"{kind}\",")).await.round() as usize;
    let retries = async |on: &str| stage.metric("retries_total", &format!("on=\"{on}\",")).await.round() as usize;
    let (broken, connect) = (failures("broken").await, failures("connect").await);
    assert!(twice > 0);
    assert_eq!(a.asked(), twice + 1);
    // The last attempt may have met the dead one on a connection that was just being closed.
    assert_eq!(broken + connect, twice + 2);
    assert_eq!((failures("timeout").await, failures("refused").await), (0, 0));
    // Each attempt but the last of the request that was lost was followed by another.
    assert_eq!(retries("broken").await + retries("connect").await, twice + 1);
    let answered = stage.metric("duration_seconds_count", "").await.round() as usize;
    assert_eq!(answered + broken + connect, 21 + twice + 1, "requests and retries are attempts");
}
