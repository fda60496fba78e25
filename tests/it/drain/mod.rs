//! The end of an instance: readiness first, no new work, old work finishes, exit 0.

mod calls;
mod hurry;
mod stage;

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::client::{get, header, http1, http2};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Token};
use crate::support::upstream::Upstream;

use stage::Stage;

async fn stage(drain: &str) -> (Upstream, Gateway, Token) {
    let Stage { upstream, gateway, token, .. } = Stage::start(drain).await;
    (upstream, gateway, token)
}

#[tokio::test]
async fn requests_in_flight_finish_and_new_connections_are_refused() {
    let (upstream, mut gateway, token) = stage("{ timeout: 5m }").await;
    let (first, second) = (http1(&gateway), http2(&gateway));
    let path = "/held";
    let pending: Vec<_> = [first, second]
        .into_iter()
        .map(|client| {
            let request = client.get(gateway.url(path)).bearer_auth(&token.secret);
            tokio::spawn(async move {
                let response = request.send().await.unwrap();
                let says_close = header(&response, "connection") == "close";
                (says_close, response.text().await.unwrap())
            })
        })
        .collect();
    eventually("both requests to be upstream", async || (upstream.seen().len() == 2).then_some(())).await;
    gateway.signal(Signal::TERM);
    eventually("the listener to close", async || {
        tokio::net::TcpStream::connect(gateway.https).await.is_err().then_some(())
    })
    .await;
    // The listener is closed while the instance still has work, and not because it has ended.
    assert!(pending.iter().all(|request| !request.is_finished()));
    // On HTTP/2 a GOAWAY says it.
    for (request, says_close) in pending.into_iter().zip([true, false]) {
        upstream.step();
        upstream.step();
        assert_eq!(request.await.unwrap(), (says_close, "late".to_owned()));
    }
    assert_eq!(gateway.wait().await.code(), Some(0));
    assert!(gateway.log().iter().any(|line| line["message"] == "ended"));
}

#[tokio::test]
async fn readiness_fails_while_the_drain_is_delayed() {
    let (_upstream, gateway, token) = stage("{ delay: 5m }").await;
    assert_eq!(gateway.admin("/readyz").await, (200, "ready\n".into()));
    gateway.signal(Signal::TERM);
    let body = eventually("readiness to fail", async || {
        let (status, body) = gateway.admin("/readyz").await;
        (status == 503).then_some(body)
    })
    .await;
    assert_eq!(body, "not ready: draining\n");
    assert_eq!(gateway.admin("/livez").await.0, 200);
    // Load balancers have not noticed yet: they are still served.
    assert_eq!(get(&http2(&gateway), &gateway, "/echo", &token).await.status(), 200);

    let (_upstream, mut gateway, _) = stage("{ delay: 1s }").await;
    let started = Instant::now();
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait().await.code(), Some(0));
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test]
async fn unfinished_requests_are_cut_at_the_drain_timeout() {
    let (_upstream, mut gateway, token) = stage("{ timeout: 1s }").await;
    let client = http1(&gateway);
    let mut response = get(&client, &gateway, "/events", &token).await;
    response.chunk().await.unwrap().unwrap();
    let started = Instant::now();
    gateway.signal(Signal::TERM);
    while let Ok(Some(_)) = response.chunk().await {}
    assert_eq!(gateway.wait().await.code(), Some(0));
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
    let line = gateway.access("/events", 1).await.remove(0);
    assert_eq!(line["cut"], true);
}

#[tokio::test]
async fn an_idle_instance_ends_at_once() {
    let (_upstream, mut gateway, token) = stage("{ timeout: 10m }").await;
    let (first, second) = (http1(&gateway), http2(&gateway));
    assert_eq!(get(&first, &gateway, "/echo", &token).await.status(), 200);
    assert_eq!(get(&second, &gateway, "/echo", &token).await.status(), 200);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait().await.code(), Some(0));
}

#[tokio::test]
async fn only_term_int_and_quit_end_an_instance() {
    let (_upstream, mut gateway, token) = stage("{ timeout: 5m }").await;
    let client = http1(&gateway);
    for signal in [
        Signal::USR1,
        Signal::USR2,
        Signal::PIPE,
        Signal::ALARM,
        Signal::VTALARM,
        Signal::PROF,
        Signal::IO,
        Signal::POWER,
        Signal::STKFLT,
        Signal::XCPU,
        Signal::XFSZ,
        Signal::HUP,
    ] {
        gateway.signal(signal);
        assert_eq!(get(&client, &gateway, "/echo", &token).await.status(), 200, "after {signal:?}");
    }
    eventually("a line on the SIGHUP", async || {
        let lines = gateway.log();
        lines.iter().any(|line| line["message"].to_string().contains("the configuration was read again")).then_some(())
    })
    .await;
    gateway.signal(Signal::QUIT);
    assert_eq!(gateway.wait().await.code(), Some(0));
    assert!(gateway.log().iter().any(|line| line["message"] == "ended"), "QUIT drains");
}
