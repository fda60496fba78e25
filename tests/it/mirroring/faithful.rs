//! A mirror gets what the upstream gets, for the sampled requests only.

use futures_util::stream;
use reqwest::Body;
use tokio::io::AsyncWriteExt;

use super::{Keys, Stage, site};
use crate::support::calls::{call, switchboard};
use crate::support::client::{get, header, http2, raw};
use crate::support::eventually;
use crate::support::recorder::{Message, Recorder};
use crate::support::upstream::Upstream;

/// Waits for so many copies.
async fn copies(shadow: &Recorder, count: usize) -> Vec<Message> {
    eventually(&format!("{count} copies"), async || {
        let messages = shadow.messages();
        (messages.len() >= count).then_some(messages)
    })
    .await
}

/// Header lines but for those by which a copy differs.
fn lines(message: &Message) -> Vec<String> {
    let lines = message.head.split("\r\n").skip(1).map(str::to_ascii_lowercase);
    let differs = |line: &String| {
        ["x-callgate-mirrored:", "content-length:", "transfer-encoding:"].iter().any(|name| line.starts_with(name))
    };
    let mut lines: Vec<String> = lines.filter(|line| !differs(line)).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn a_mirror_gets_what_the_upstream_gets() {
    let (up, shadow) = (Recorder::start().await, Recorder::start().await);
    let keys = Keys {
        route: ", strip_prefix: /api, request_headers: { set: { x-tenant: one }, remove: [cookie] }",
        ..Keys::default()
    };
    let site = site(up.address, &[shadow.address], &keys);
    site.replace("/{*rest}", "/api/{*rest}");
    let stage = Stage::on(&site);
    let mut asked = 0;
    for client in &stage.clients {
        let ask = |method: reqwest::Method| {
            let request = client.request(method, stage.gateway.url("/api/calls/a%20b?x=1&y=%2F"));
            let request = request.bearer_auth(&stage.token.secret).header("x-request-id", format!("id-{asked}"));
            request.header("x-callgate-mirrored", "true").header("cookie", "a=b").header("x-own", "1")
        };
        let pieces = stream::iter([Ok::<_, std::io::Error>("pie"), Ok("ces")]);
        for (request, body) in [
            (ask(reqwest::Method::GET), ""),
            (ask(reqwest::Method::HEAD), ""),
            (ask(reqwest::Method::POST).body("whole"), "whole"),
            (ask(reqwest::Method::PUT).body(Body::wrap_stream(pieces)), "pieces"),
            (ask(reqwest::Method::POST).body(""), ""),
        ] {
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(header(&response, "x-ratelimit-remaining"), (9_999 - asked).to_string());
            asked += 1;
            let copy = copies(&shadow, asked).await.remove(asked - 1);
            let own = up.last();
            assert_eq!((copy.line(), lines(&copy)), (own.line(), lines(&own)));
            assert!(copy.line().ends_with(" /calls/a%20b?x=1&y=%2F HTTP/1.1"), "{}", copy.line());
            assert_eq!(copy.all("x-callgate-mirrored"), ["true"], "the receiver can tell");
            assert_eq!(own.all("x-callgate-mirrored"), [""; 0], "and nobody else can pretend");
            assert_eq!((copy.all("x-tenant"), copy.all("authorization")), (vec!["one"], vec![]));
            assert_eq!(copy.all("x-callgate-token-id"), [&stage.token.id]);
            // A copy is known as a whole when it is sent.
            assert_eq!((&*copy.body, copy.all("transfer-encoding")), (body, vec![]), "{}", own.head);
            assert_eq!(copy.all("content-length").first().map_or(0, |length| length.parse().unwrap()), body.len());
        }
    }
    stage.count("answered", asked).await;
    assert_eq!(up.messages().len(), asked);
}

#[tokio::test]
async fn the_host_and_the_protocol_are_the_mirrors_own() {
    let (up, shadow) = (Upstream::start().await, Upstream::http2(10).await);
    let keys =
        Keys { shadow: ", protocol: http2, host: endpoint", route: ", forward_credentials: true", ..Keys::default() };
    let stage = Stage::new(up.address, shadow.address, &keys);
    for client in &stage.clients {
        let request = client.post(stage.gateway.url("/echo")).bearer_auth(&stage.token.secret).body("hello");
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    stage.count("answered", 2).await;
    for copy in shadow.seen() {
        assert_eq!((copy.version, &*copy.target), (http::Version::HTTP_2, &*format!("http://{}/echo", shadow.address)));
        assert_eq!(copy.headers["authorization"], format!("Bearer {}", stage.token.secret));
        assert_eq!(copy.headers["content-length"], "5");
    }
    assert_eq!((shadow.seen().len(), shadow.connections() <= 2), (2, true));
}

#[tokio::test]
async fn only_a_share_is_copied() {
    let (up, shadow) = (Upstream::start().await, Upstream::start().await);
    let keys = Keys {
        mirror: ", share: 30%",
        routes: "  - { path: /none, upstream: up, mirror: { upstream: shadow, share: 0% } }\n",
        ..Keys::default()
    };
    let stage = Stage::new(up.address, shadow.address, &keys);
    for _ in 0..300 {
        assert_eq!(stage.get("/status/204").await, 204);
    }
    for _ in 0..20 {
        assert_eq!(stage.get("/none").await, 200);
    }
    eventually("all copies to be answered", async || {
        (stage.counted("answered").await == shadow.seen().len()).then_some(())
    })
    .await;
    // Six standard deviations.
    assert!((45..=135).contains(&shadow.seen().len()), "{} of 300", shadow.seen().len());
    assert!(shadow.seen().iter().all(|copy| copy.target == "/status/204"));
}

#[tokio::test]
async fn rejected_requests_are_not_copied() {
    let (up, shadow) = (Upstream::start().await, Upstream::start().await);
    let routes = "  - { path: /guarded, permission: \"calls:none\", upstream: up, mirror: { upstream: shadow } }\n  \
                  - { path: /get, methods: [GET], upstream: up, mirror: { upstream: shadow } }\n  \
                  - { path: /page, upstream: up, cors: { origins: \"*\" }, mirror: { upstream: shadow } }\n";
    let keys = Keys { routes, route: ", max_body: 10", ..Keys::default() };
    let site = site(up.address, &[shadow.address], &keys);
    let few = site.token_with(&[], &["--limit", "minute=1/1m"]);
    let stage = Stage::on(&site);
    let client = http2(&stage.gateway);
    for (path, status) in [("/guarded", 403), ("/a//b", 400)] {
        assert_eq!(stage.get(path).await, status, "{path}");
    }
    assert_eq!(client.get(stage.gateway.url("/x")).bearer_auth("wrong").send().await.unwrap().status(), 401);
    let post = |path: &str| client.post(stage.gateway.url(path)).bearer_auth(&stage.token.secret);
    assert_eq!(post("/get").send().await.unwrap().status(), 405);
    assert_eq!(post("/x").body("more than ten bytes").send().await.unwrap().status(), 413);
    let pieces = stream::iter([Ok::<_, std::io::Error>("more than"), Ok(" ten bytes")]);
    assert_eq!(post("/x").body(Body::wrap_stream(pieces)).send().await.unwrap().status(), 413);
    let preflight = client.request(reqwest::Method::OPTIONS, stage.gateway.url("/page"));
    let preflight = preflight.header("origin", "https://a.test").header("access-control-request-method", "GET");
    assert_eq!(preflight.send().await.unwrap().status(), 204);
    assert_eq!(get(&client, &stage.gateway, "/ok", &few).await.status(), 200);
    assert_eq!(get(&client, &stage.gateway, "/ok", &few).await.status(), 429);
    stage.count("answered", 1).await;
    // The one that was refused in the middle of its body.
    stage.count("unfinished", 1).await;
    let seen = shadow.seen();
    assert_eq!((seen.len(), &*seen[0].target), (1, "/ok"), "{seen:?}");
}

#[tokio::test]
async fn bodies_that_are_too_long_or_break_off_are_not_copied() {
    let (up, shadow) = (Recorder::start().await, Recorder::start().await);
    let stage = Stage::new(up.address, shadow.address, &Keys { mirror: ", max_body: 64KiB", ..Keys::default() });
    for (client, round) in stage.clients.iter().zip(1..) {
        let post = || client.post(stage.gateway.url("/x")).bearer_auth(&stage.token.secret);
        let pieces = |count: usize| {
            let pieces = (0..count).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 8 << 10]));
            Body::wrap_stream(stream::iter(pieces))
        };
        for (body, most) in [
            (Body::from(vec![b'x'; 64 << 10]), true),
            (Body::from(vec![b'x'; (64 << 10) + 1]), false),
            (pieces(8), true),
            (pieces(9), false),
        ] {
            assert_eq!(post().body(body).send().await.unwrap().status(), 200, "{most}");
        }
        stage.count("answered", 2 * round).await;
        stage.count("too_large", 2 * round).await;
        assert!(shadow.messages().iter().all(|copy| copy.body.len() == 64 << 10));
    }
    let head = format!("POST /x HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n", stage.token.secret);
    for (count, begun) in
        ["content-length: 10\r\n\r\nhello", "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"].iter().enumerate()
    {
        let mut stream = raw(&stage.gateway, "http/1.1").await;
        stream.write_all(format!("{head}{begun}").as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        eventually("the beginning at the upstream", async || {
            (up.received().matches("hello").count() == count + 1).then_some(())
        })
        .await;
        drop(stream);
        stage.count("unfinished", count + 1).await;
    }
    assert_eq!(shadow.messages().len(), 4);
}

#[tokio::test]
async fn calls_are_not_copied() {
    let (board, shadow) = (switchboard().await, Recorder::start().await);
    let stage = Stage::new(board, shadow.address, &Keys::default());
    drop(call(&stage.gateway, &stage.token, "/call").await.expect("a call"));
    // Nor is what asks for one in vain.
    assert!(call(&stage.gateway, &stage.token, "/other").await.is_err());
    assert_eq!(stage.get("/plain").await, 200);
    stage.count("answered", 1).await;
    assert_eq!(shadow.only().line(), "GET /plain HTTP/1.1");

    let (up, shadow) = (Upstream::http2(10).await, Upstream::http2(10).await);
    let keys = Keys { up: ", protocol: http2", shadow: ", protocol: http2", ..Keys::default() };
    let stage = Stage::new(up.address, shadow.address, &keys);
    for kind in ["application/grpc", "application/grpc+proto", "application/json"] {
        let request = stage.clients[1].post(stage.gateway.url("/echo")).bearer_auth(&stage.token.secret);
        assert_eq!(request.header("content-type", kind).body("x").send().await.unwrap().status(), 200);
    }
    stage.count("answered", 1).await;
    let seen = shadow.seen();
    assert_eq!((seen.len(), &seen[0].headers["content-type"]), (1, &"application/json".parse().unwrap()));
}
