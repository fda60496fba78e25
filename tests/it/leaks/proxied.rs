//! Requests of clients: every state of a token, every place where one may stand, and bytes that are no requests.

use std::collections::BTreeSet;

use reqwest::{Client, RequestBuilder};

use super::commands::Tokens;
use super::evidence::base64;
use super::scene::Scene;
use crate::support::client::{exchange, http1, http2};
use crate::support::gateway::Gateway;

/// Sends it and hears the answer.
async fn ask(scene: &mut Scene, request: RequestBuilder) -> u16 {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let headers = format!("{:?}", response.headers());
    scene.evidence.record("the head of an answer", &headers);
    scene.evidence.record("the body of an answer", &response.text().await.unwrap());
    status
}

/// A token that has to be refused.
pub(super) async fn refused(scene: &mut Scene, gateway: &Gateway, secret: &str) {
    let status = ask(scene, http2(gateway).get(gateway.url("/guarded/echo")).bearer_auth(secret)).await;
    assert!([401, 503].contains(&status), "{status}");
}

/// All kinds of requests.
pub(super) async fn requests(scene: &mut Scene, gateway: &Gateway, tokens: &Tokens) {
    let mut statuses = BTreeSet::new();
    for client in [http1(gateway), http2(gateway)] {
        for secret in tokens.all() {
            for path in ["/guarded/echo", "/guarded/echo", "/echo", "/down", "/guarded//x"] {
                statuses.insert(ask(scene, client.get(gateway.url(path)).bearer_auth(secret)).await);
            }
        }
        statuses.extend(in_strange_places(scene, gateway, &client, tokens).await);
    }
    println!("{statuses:?}");
    assert!([400, 401].iter().all(|status| statuses.contains(status)), "{statuses:?}");
    for seen in scene.upstream.seen() {
        assert!(!seen.headers.contains_key("authorization"), "{seen:?}");
    }
    no_requests(scene, gateway, tokens).await;
}

async fn in_strange_places(scene: &mut Scene, gateway: &Gateway, client: &Client, tokens: &Tokens) -> BTreeSet<u16> {
    let mut statuses = BTreeSet::new();
    let secret = &tokens.good.secret;
    let mistyped = format!("{}{}", &secret[..secret.len() - 1], if secret.ends_with('0') { '1' } else { '0' });
    let lines = [
        format!("Bearer {mistyped}"),
        format!("Bearer {secret} more"),
        format!("Bearer {secret},{secret}"),
        format!("bearer  {secret}"),
        format!("Basic {}", base64(&format!("user:{secret}"))),
        format!("Token {secret}"),
        secret.clone(),
    ];
    for line in &lines {
        statuses.insert(ask(scene, client.get(gateway.url("/status/200")).header("authorization", line)).await);
    }
    // The upstream's answer is fixed there: what it is told, it does not repeat.
    for secret in [secret, &tokens.foreign] {
        for good in [false, true] {
            let with = |request: RequestBuilder| if good { request.bearer_auth(secret) } else { request };
            let place = |path: String| client.get(gateway.url(&path));
            let escaped = secret.replace('|', "%7C");
            let own = !secret.contains('|');
            let path = if own { format!("/status/{escaped}/200") } else { "/status/200".to_owned() };
            for request in [
                place(format!("/status/200?access_token={escaped}")),
                place(path),
                place("/status/200".into()).header("x-api-key", secret).header("cookie", format!("session={secret}")),
                client.post(gateway.url("/status/200")).body(format!("access_token={secret}")),
                client.delete(gateway.url("/status/200")).header("x-token", secret),
            ] {
                statuses.insert(ask(scene, with(request)).await);
            }
        }
    }
    statuses
}

/// Bytes that are refused before anybody looks at a token.
async fn no_requests(scene: &mut Scene, gateway: &Gateway, tokens: &Tokens) {
    let secret = &tokens.good.secret;
    let own = format!("authorization: Bearer {secret}\r\n");
    let get = "GET /status/200 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    for bytes in [
        format!("{get}{own}{own}\r\n"),
        format!("{get}{own}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{get}authorization : Bearer {secret}\r\n\r\n"),
        format!("{get}x: y\r\n authorization: Bearer {secret}\r\n\r\n"),
        format!("{get}{own}x: {}\r\n\r\n", "y".repeat(200_000)),
        format!("{get}authorization: Bearer {secret}\u{1}\r\n\r\n"),
        format!(
            "GET https://user:{secret}@localhost/status/200 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        ),
        format!("GET /status/200?{secret} HTTP/9.9\r\nhost: localhost\r\nconnection: close\r\n\r\n"),
        format!("TRACE /status/200 HTTP/1.1\r\nhost: localhost\r\n{own}connection: close\r\n\r\n"),
        format!("CONNECT localhost:443 HTTP/1.1\r\nhost: localhost:443\r\n{own}connection: close\r\n\r\n"),
        format!("{secret}\r\n\r\n"),
    ] {
        let answer = exchange(gateway, bytes.as_bytes()).await;
        scene.evidence.record("the answer to no request", &answer);
    }
}
