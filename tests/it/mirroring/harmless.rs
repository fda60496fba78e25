//! A mirror can't delay requests, fail them, use up their permits, or delay the end of an instance.

use std::net::SocketAddr;
use std::sync::Arc;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::{Keys, Stage, site};
use crate::support::eventually;
use crate::support::recorder::{OK, Recorder};
use crate::support::upstream::Upstream;

/// A mirror that answers each request when there is a permit for it.
async fn held() -> (SocketAddr, Arc<Semaphore>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let go = Arc::new(Semaphore::new(0));
    let given = go.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let go = go.clone();
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while let Ok(1..) = socket.read(&mut bytes).await {
                    go.acquire().await.unwrap().forget();
                    let _ = socket.write_all(OK).await;
                }
            });
        }
    });
    (address, given)
}

#[tokio::test]
async fn a_mirror_that_never_answers_delays_no_request_and_stays_within_its_bounds() {
    let (up, shadow) = (Upstream::start().await, Recorder::answering(|_| Vec::new()).await);
    let stage =
        Stage::new(up.address, shadow.address, &Keys { mirror: ", max_copies: 3, timeout: 5m", ..Keys::default() });
    // A request that waited for a copy would take longer than this client waits.
    for _ in 0..30 {
        assert_eq!(stage.get("/status/200").await, 200);
    }
    stage.count("busy", 27).await;
    eventually("three copies", async || (shadow.messages().len() == 3).then_some(())).await;
    for outcome in ["answered", "failed", "timeout"] {
        assert_eq!(stage.counted(outcome).await, 0, "{outcome}");
    }
    assert_eq!(stage.gateway.metric(r#"callgate_upstream_in_flight{upstream="up"}"#).await, Some(0.0));
}

#[tokio::test]
async fn a_copy_without_an_answer_in_time_frees_its_permit() {
    // Every second answer breaks off after its beginning.
    let count = std::sync::atomic::AtomicUsize::new(0);
    let shadow = Recorder::answering(move |_| match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) % 2 {
        0 => Vec::new(),
        _ => b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbegun".to_vec(),
    });
    let (up, shadow) = (Upstream::start().await, shadow.await);
    let stage =
        Stage::new(up.address, shadow.address, &Keys { mirror: ", max_copies: 1, timeout: 300ms", ..Keys::default() });
    for round in 1..=4 {
        eventually("a place for a copy", async || {
            assert_eq!(stage.get("/x").await, 200);
            (shadow.messages().len() == round).then_some(())
        })
        .await;
    }
    stage.count("timeout", 4).await;
}

#[tokio::test]
async fn an_unreachable_mirror_fails_no_request() {
    let up = Upstream::start().await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stage = Stage::new(up.address, dead, &Keys::default());
    for client in &stage.clients {
        for _ in 0..10 {
            let request = client.post(stage.gateway.url("/echo")).bearer_auth(&stage.token.secret).body("hello");
            let reported: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
            assert_eq!(reported["body_length"], 5);
        }
    }
    stage.count("failed", 20).await;
    // A failed copy fails no request and ejects no endpoint.
    for series in [
        r#"callgate_upstream_failures_total{kind="connect",upstream="shadow"}"#.to_owned(),
        format!(r#"callgate_upstream_ejections_total{{endpoint="http://{dead}",upstream="shadow"}}"#),
    ] {
        assert_eq!(stage.gateway.metric(&series).await, Some(0.0), "{series}");
    }
}

/// A mirror may be another route's upstream.
#[tokio::test]
async fn outcomes_of_copies_neither_eject_nor_reset() {
    let up = Upstream::start().await;
    let answer = |message: &crate::support::recorder::Message| match message.all("x-callgate-mirrored").is_empty() {
        true => OK.to_vec(),
        false => b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno".to_vec(),
    };
    let (a, b) = (Recorder::answering(answer).await, Recorder::answering(answer).await);
    let keys = Keys {
        shadow: ", balance: round_robin, ejection: { failures: 2, time: 1h, max_time: 1h }",
        routes: "  - { path: /real, upstream: shadow }\n",
        ..Keys::default()
    };
    let stage = Stage::on(&site(up.address, &[a.address, b.address], &keys));
    for _ in 0..20 {
        assert_eq!(stage.get("/copied").await, 200);
    }
    stage.count("server_error", 20).await;
    for _ in 0..8 {
        assert_eq!(stage.get("/real").await, 200);
    }
    for one in [&a, &b] {
        let (real, copies): (Vec<_>, Vec<_>) =
            one.messages().into_iter().partition(|message| message.line().contains("/real"));
        assert!(real.len() >= 3 && copies.len() >= 8, "{} and {}", real.len(), copies.len());
    }

    // A copy that succeeds does not make up for requests that fail.
    let answer = |message: &crate::support::recorder::Message| match message.all("x-callgate-mirrored").is_empty() {
        false => OK.to_vec(),
        true => b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno".to_vec(),
    };
    let (a, b) = (Recorder::answering(answer).await, Recorder::start().await);
    let keys = Keys { shadow: ", balance: round_robin, ejection: { failures: 4, time: 1h, max_time: 1h }", ..keys };
    let stage = Stage::on(&site(up.address, &[a.address, b.address], &keys));
    for copies in 1..=10 {
        stage.get("/real").await;
        stage.get("/real").await;
        assert_eq!(stage.get("/copied").await, 200);
        stage.count("answered", copies).await;
    }
    let ejected = format!(r#"callgate_upstream_ejections_total{{endpoint="http://{}",upstream="shadow"}}"#, a.address);
    assert_eq!(stage.gateway.metric(&ejected).await, Some(1.0));
}

#[tokio::test]
async fn copies_take_no_permit_that_a_request_waits_for() {
    let up = Upstream::start().await;
    let (shadow, go) = held().await;
    let keys = Keys {
        shadow: ", max_requests: 1, max_waiting: 10, max_wait: 20s",
        routes: "  - { path: /real, upstream: shadow }\n",
        ..Keys::default()
    };
    let stage = Stage::new(up.address, shadow, &keys);
    assert_eq!(stage.get("/copied").await, 200);
    let in_flight = r#"callgate_upstream_in_flight{upstream="shadow"}"#;
    eventually("a copy in flight", async || (stage.gateway.metric(in_flight).await == Some(1.0)).then_some(())).await;
    // A copy does not wait for a place, a request does.
    assert_eq!(stage.get("/copied").await, 200);
    stage.count("busy", 1).await;
    let request = stage.clients[1].get(stage.gateway.url("/real")).bearer_auth(&stage.token.secret).send();
    let request = tokio::spawn(request);
    let waiting = r#"callgate_upstream_waiting{upstream="shadow"}"#;
    eventually("a request to wait", async || (stage.gateway.metric(waiting).await == Some(1.0)).then_some(())).await;
    go.add_permits(2);
    assert_eq!(request.await.unwrap().unwrap().status(), 200);
    stage.count("answered", 1).await;
}

#[tokio::test]
async fn requests_that_are_not_sent_are_not_copied() {
    let (up, go) = held().await;
    let shadow = Recorder::start().await;
    let keys = Keys { up: ", max_requests: 1, max_waiting: 0", ..Keys::default() };
    let stage = Stage::new(up, shadow.address, &keys);
    let first = stage.clients[1].get(stage.gateway.url("/first")).bearer_auth(&stage.token.secret).send();
    let first = tokio::spawn(first);
    eventually("the first copy", async || (shadow.messages().len() == 1).then_some(())).await;
    assert_eq!(stage.get("/second").await, 503);
    stage.count("unfinished", 1).await;
    go.add_permits(1);
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    assert_eq!(shadow.only().line(), "GET /first HTTP/1.1");
}

#[tokio::test]
async fn a_connection_that_the_mirror_has_closed_loses_no_copy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Answers one request a connection and closes it without saying so.
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            assert!(socket.read(&mut request).await.unwrap() > 0);
            socket.write_all(OK).await.unwrap();
        }
    });
    let up = Upstream::start().await;
    let stage = Stage::new(up.address, address, &Keys::default());
    for _ in 0..100 {
        assert_eq!(stage.get("/x").await, 200);
    }
    stage.count("answered", 100).await;
}

#[tokio::test]
async fn long_and_endless_answers_are_cut_and_short_ones_keep_the_connection() {
    let (up, shadow) = (Recorder::start().await, Upstream::start().await);
    let stage = Stage::new(up.address, shadow.address, &Keys { mirror: ", timeout: 5m", ..Keys::default() });
    for (path, count) in [("/bytes/100000", 1), ("/bytes/100000", 2), ("/bytes/1000000000", 3), ("/events", 4)] {
        assert_eq!(stage.get(path).await, 200);
        if path == "/events" {
            // An endless stream of another type is read for as long as a copy may last, or until it is long.
            eventually("the stream", async || (shadow.open_streams() == 1).then_some(())).await;
        } else {
            stage.count("answered", count).await;
        }
    }
    // The first is used until an answer is too long for it.
    assert!(shadow.connections() <= 2, "{}", shadow.connections());
}

#[tokio::test]
async fn a_drain_waits_for_copies_and_cuts_them_at_its_end() {
    let up = Upstream::start().await;
    for (drain, released) in [("drain: { timeout: 1m }", true), ("drain: { timeout: 1s }", false)] {
        let (shadow, go) = held().await;
        let keys = Keys { mirror: ", timeout: 5m", rest: drain, ..Keys::default() };
        let mut stage = Stage::new(up.address, shadow, &keys);
        assert_eq!(stage.get("/x").await, 200);
        let in_flight = r#"callgate_upstream_in_flight{upstream="shadow"}"#;
        eventually("a copy in flight", async || (stage.gateway.metric(in_flight).await == Some(1.0)).then_some(()))
            .await;
        stage.gateway.signal(Signal::TERM);
        if released {
            eventually("the listener to close", async || {
                tokio::net::TcpStream::connect(stage.gateway.https).await.is_err().then_some(())
            })
            .await;
            stage.clients = [reqwest::Client::new(), reqwest::Client::new()];
            assert_eq!(stage.gateway.admin("/livez").await.0, 200);
            assert!(!stage.gateway.log().iter().any(|line| line["message"] == "ended"));
            go.add_permits(1);
        }
        assert_eq!(stage.gateway.wait().await.code(), Some(0));
        let cut = stage.gateway.log().iter().any(|line| line["cut"].as_u64() > Some(0));
        assert_eq!(cut, !released, "{drain}");
    }
}
