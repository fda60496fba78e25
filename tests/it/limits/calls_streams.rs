//! Streams of events and gRPC are calls: they count among a token's open calls, and end as WebSockets do.

use reqwest::{Client, Response};

use crate::support::client::{header, http1, http2};
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::redis::RedisServer;
use crate::support::upstream::Upstream;
use crate::support::{WAIT_TIMEOUT, eventually};

const MEMORY: &str = "store: memory\ntokens: { file: tokens.yaml }";

/// A gateway before one upstream, whose plan admits two calls of a token at one time.
fn stage(store: &str, upstream: &Upstream, keys: &str, route: &str) -> (Gateway, Token) {
    let site = Site::new(&format!(
        "{store}\nplans: {{ standard: {{ limits: {{ minute: 1000/1m }}, concurrent_calls: 2 }} }}\n\
         routes:\n  - {{ path: \"/free/{{*rest}}\", strip_prefix: /free, upstream: up, call: {{ counted: false }} }}\n  \
         - {{ path: \"/{{*rest}}\", upstream: up{route} }}\n\
         upstreams: {{ up: {{ endpoints: [\"http://{}\"]{keys} }} }}",
        upstream.address
    ));
    let token = site.token(&[]);
    (site.serve(), token)
}

async fn events(client: &Client, gateway: &Gateway, token: &Token, accept: &str) -> Response {
    let request = client.get(gateway.url("/feed")).bearer_auth(&token.secret);
    request.header("accept", accept).send().await.unwrap()
}

async fn grpc(client: &Client, gateway: &Gateway, token: &Token, path: &str) -> Response {
    let request = client.post(gateway.url(path)).bearer_auth(&token.secret);
    request.header("content-type", "application/grpc").body("question").send().await.unwrap()
}

async fn open_calls(gateway: &Gateway, token: &Token, count: usize) {
    let wanted = format!("\"open_calls\":{count}");
    eventually(&wanted, async || {
        gateway.admin(&format!("/api/limits/{}", token.id)).await.1.contains(&wanted).then_some(())
    })
    .await;
}

/// Reads an answer to its end; whether it broke off.
async fn breaks_off(mut response: Response) -> bool {
    let read = async {
        loop {
            match response.chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    };
    tokio::time::timeout(WAIT_TIMEOUT, read).await.expect("an end in time")
}

#[tokio::test]
async fn streams_of_events_count_as_open_calls() {
    let server = RedisServer::start();
    let redis = format!("store: {{ redis: {{ url: \"{}\", deadline: 10s, on_failure: deny }} }}", server.url());
    for store in [MEMORY, &redis] {
        let upstream = Upstream::start().await;
        let (gateway, token) = stage(store, &upstream, "", "");
        for client in [http1(&gateway), http2(&gateway)] {
            // Whether the request asks for events, or only the answer says what it is.
            for accept in ["text/event-stream", "application/json, text/event-stream"] {
                let first = events(&client, &gateway, &token, accept).await;
                let second = events(&client, &gateway, &token, accept).await;
                assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 200));
                let before = upstream.seen().len();
                let refused = events(&client, &gateway, &token, accept).await;
                assert_eq!((refused.status().as_u16(), header(&refused, "retry-after")), (429, "2"), "{accept}");
                assert!(refused.text().await.unwrap().contains("\"too_many_calls\""));
                let reached = upstream.seen().len() - before;
                assert_eq!(reached, usize::from(accept != "text/event-stream"), "what is known is refused at once");
                eventually("two streams", async || (upstream.open_streams() == 2).then_some(())).await;
                open_calls(&gateway, &token, 2).await;
                let ordinary = client.get(gateway.url("/echo")).bearer_auth(&token.secret).send().await.unwrap();
                assert_eq!(ordinary.status(), 200, "an ordinary request is no call");
                drop(first);
                open_calls(&gateway, &token, 1).await;
                let again = events(&client, &gateway, &token, accept).await;
                assert_eq!(again.status(), 200);
                drop((second, again));
                open_calls(&gateway, &token, 0).await;
            }
            // An answer that is no stream keeps no lease.
            for _ in 0..3 {
                let request = client.get(gateway.url("/steps")).bearer_auth(&token.secret);
                let plain = request.header("accept", "text/event-stream").send().await.unwrap();
                assert_eq!(plain.status(), 200);
                open_calls(&gateway, &token, 0).await;
            }
        }
    }
}

#[tokio::test]
async fn grpc_requests_count_as_open_calls_while_they_last() {
    let upstream = Upstream::http2(100).await;
    let (gateway, token) = stage(MEMORY, &upstream, ", protocol: http2", "");
    let client = http2(&gateway);
    let first = grpc(&client, &gateway, &token, "/events").await;
    let second = grpc(&client, &gateway, &token, "/events").await;
    assert_eq!((header(&first, "grpc-status"), header(&second, "grpc-status")), ("", ""));
    let refused = grpc(&client, &gateway, &token, "/events").await;
    assert_eq!((header(&refused, "grpc-status"), header(&refused, "grpc-retry-pushback-ms")), ("8", "2000"));
    let free = grpc(&client, &gateway, &token, "/free/status/200").await;
    assert_eq!((free.status().as_u16(), header(&free, "grpc-status")), (200, ""), "its route does not count");
    drop((first, second));
    open_calls(&gateway, &token, 0).await;
    for _ in 0..5 {
        let unary = grpc(&client, &gateway, &token, "/status/200").await;
        assert_eq!(header(&unary, "grpc-status"), "");
        unary.bytes().await.unwrap();
        open_calls(&gateway, &token, 0).await;
    }
}

#[tokio::test]
async fn streams_of_events_end_at_the_maximum_duration_of_calls() {
    let upstream = Upstream::start().await;
    let (gateway, token) = stage(MEMORY, &upstream, "", ", call: { max_duration: 1s }");
    let clients = [http1(&gateway), http2(&gateway)];
    for client in &clients {
        let stream = events(client, &gateway, &token, "text/event-stream").await;
        assert!(breaks_off(stream).await, "an answer that is not whole must not look so");
    }
    for line in gateway.access("/feed", 2).await {
        assert_eq!(
            (&line["ended_by"], &line["error"]),
            (&"gateway".into(), &"the call reached its maximum duration".into())
        );
    }
    open_calls(&gateway, &token, 0).await;
    eventually("the upstream's streams to end", async || (upstream.open_streams() == 0).then_some(())).await;
}

#[tokio::test]
async fn revoking_ends_a_grpc_call_that_has_no_answer_yet() {
    let upstream = Upstream::http2(100).await;
    let (gateway, token) = stage(MEMORY, &upstream, ", protocol: http2", "");
    let client = http2(&gateway);
    let waiting = async { grpc(&client, &gateway, &token, "/slow/600000").await };
    let revoking = async {
        eventually("the request", async || (upstream.seen().len() == 1).then_some(())).await;
        assert!(gateway.site.run(&["token", "revoke", "--yes", &token.id]).status.success());
    };
    let (answer, ()) = tokio::join!(waiting, revoking);
    assert_eq!(header(&answer, "grpc-status"), "16");
}
