//! Caps on concurrent calls, with real sockets through real instances.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::calls::{call, switchboard};
use crate::support::client::{get, header, http2};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::redis::RedisServer;

async fn call_when_free(gateway: &Gateway, token: &Token) -> TlsStream<TcpStream> {
    eventually("a place to be free", async || call(gateway, token, "/call").await.ok()).await
}

fn assert_too_many(head: &str) {
    assert!(head.starts_with("HTTP/1.1 429 ") && head.contains("\r\nretry-after: 2\r\n"), "{head}");
}

fn site(store: &str, upstream: SocketAddr, plan: &str) -> Arc<Site> {
    Site::new(&format!(
        "{store}\nplans: {{ standard: {plan} }}\nroutes: [{{ path: \"/{{*rest}}\", upstream: up }}]\n\
         drain: {{ timeout: 1s, calls: 1s, spread: 0s }}\nupstreams: {{ up: {{ endpoints: [\"http://{upstream}\"] }} }}"
    ))
}

#[tokio::test]
async fn one_instance_caps_the_calls_of_a_token() {
    let upstream = switchboard().await;
    let plan = "{ limits: { minute: 100/1m }, concurrent_calls: 2 }";
    let site = site("store: memory\ntokens: { file: tokens.yaml }", upstream, plan);
    let (token, other) = (site.token(&[]), site.token_with(&[], &["--concurrent-calls", "3"]));
    let gateway = site.serve();
    let mut calls =
        vec![call(&gateway, &token, "/call").await.unwrap(), call(&gateway, &token, "/call").await.unwrap()];
    let refused = call(&gateway, &token, "/call").await.unwrap_err();
    assert_too_many(&refused);
    assert!(refused.contains("x-ratelimit-limit: 100\r\nx-ratelimit-remaining: 98\r\n"), "{refused}");
    let line = gateway.access("/call", 1).await.remove(0);
    assert_eq!((&line["code"], &line["status"]), (&"too_many_calls".into(), &429.into()));
    let ordinary = get(&http2(&gateway), &gateway, "/echo", &token).await;
    assert_eq!(header(&ordinary, "x-ratelimit-remaining"), "97");
    // Another token has calls of its own, and as many as its record says.
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(call(&gateway, &other, "/call").await.unwrap());
    }
    assert_too_many(&call(&gateway, &other, "/call").await.unwrap_err());

    drop(calls.pop());
    let again = call_when_free(&gateway, &token).await;
    assert_too_many(&call(&gateway, &token, "/call").await.unwrap_err());
    drop(again);
    // An attempt that did not become a call takes no lease.
    for _ in 0..5 {
        let answer = eventually("a place to be free", async || {
            let answer = call(&gateway, &token, "/never").await.unwrap_err();
            (!answer.starts_with("HTTP/1.1 429")).then_some(answer)
        });
        assert!(answer.await.starts_with("HTTP/1.1 200 "));
    }
    eventually("one call to be open", async || {
        let (_, seen) = gateway.admin(&format!("/api/limits/{}", token.id)).await;
        (seen.contains("\"concurrent_calls\":2") && seen.contains("\"open_calls\":1")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_shadow_plan_admits_calls_above_the_cap() {
    let upstream = switchboard().await;
    let plan = "{ limits: {}, concurrent_calls: 1, shadow: true }";
    let site = site("store: memory\ntokens: { file: tokens.yaml }", upstream, plan);
    let token = site.token(&[]);
    let gateway = site.serve();
    let _calls = [call(&gateway, &token, "/call").await.unwrap(), call(&gateway, &token, "/call").await.unwrap()];
    assert_eq!(gateway.metric("callgate_shadow_denials_total").await, Some(1.0));
}

const CAP: usize = 7;

#[tokio::test]
async fn three_instances_share_a_cap_and_free_the_calls_of_a_dead_one() {
    let server = RedisServer::start();
    let upstream = switchboard().await;
    let store = format!("store: {{ redis: {{ url: \"{}\", deadline: 10s, on_failure: deny }} }}", server.url());
    let plan = format!("{{ limits: {{ minute: 1000/1m }}, concurrent_calls: {CAP} }}");
    let sites = [(); 3].map(|()| site(&store, upstream, &plan));
    let token = sites[0].token(&[]);
    let mut gateways = sites.map(|site| site.serve());

    let attempts = (0..CAP + 6).map(|i| call(&gateways[i % 3], &token, "/call"));
    let (mut open, mut refused): ([Vec<_>; 3], usize) = Default::default();
    for (i, attempt) in join_all(attempts).await.into_iter().enumerate() {
        match attempt {
            Ok(stream) => open[i % 3].push(stream),
            Err(head) => {
                assert_too_many(&head);
                refused += 1;
            }
        }
    }
    assert_eq!((open.iter().map(Vec::len).sum::<usize>(), refused), (CAP, 6));

    // One closes, and at once one more can open anywhere.
    let from = open.iter().position(|calls| !calls.is_empty()).unwrap();
    let to = (from + 1) % 3;
    drop(open[from].pop());
    // Far sooner than a lease ends by itself.
    open[to].push(call_when_free(&gateways[to], &token).await);
    assert_too_many(&call(&gateways[2], &token, "/call").await.unwrap_err());

    // An instance that ends in order gives its places back.
    if open[2].is_empty() {
        let other = open.iter().position(|calls| !calls.is_empty()).unwrap();
        drop(open[other].pop());
        open[2].push(call_when_free(&gateways[2], &token).await);
    }
    gateways[2].signal(Signal::TERM);
    assert!(gateways[2].wait().await.success());
    for _ in std::mem::take(&mut open[2]) {
        open[1].push(call(&gateways[1], &token, "/call").await.expect("a place given back"));
    }
    assert_too_many(&call(&gateways[0], &token, "/call").await.unwrap_err());

    // One that is killed frees its places when they have not been renewed for 30 s; those of the others stay taken.
    let freed = open[1].len();
    gateways[1].signal(Signal::KILL);
    gateways[1].wait().await;
    let killed = Instant::now();
    assert_too_many(&call(&gateways[0], &token, "/call").await.unwrap_err());
    let mut calls = 0;
    while calls < freed {
        match call(&gateways[0], &token, "/call").await {
            Ok(stream) => {
                open[0].push(stream);
                calls += 1;
            }
            Err(head) => assert_too_many(&head),
        }
        assert!(killed.elapsed() < Duration::from_secs(120), "{calls} of {freed} places are free");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(killed.elapsed() > Duration::from_secs(10), "{:?}", killed.elapsed());
    assert_too_many(&call(&gateways[0], &token, "/call").await.unwrap_err());
}
