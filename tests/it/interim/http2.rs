//! Interim answers on HTTP/2 streams, and 100: a client that expects it gets it when its request is admitted.

use std::future::poll_fn;
use std::process::Stdio;
use std::task::Poll;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;

use super::stage;
use crate::support::client::raw;
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::upstream::Upstream;
use crate::support::{WAIT_TIMEOUT, eventually};

async fn connect(gateway: &Gateway) -> SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(raw(gateway, "h2").await).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

fn ask(
    client: &mut SendRequest<Bytes>,
    path: &str,
    secret: &str,
    expects: bool,
) -> (ResponseFuture, SendStream<Bytes>) {
    let request = Request::builder()
        .method(if expects { "POST" } else { "GET" })
        .uri(format!("https://localhost{path}"))
        .header("authorization", format!("Bearer {secret}"));
    let request = if expects { request.header("expect", "100-continue") } else { request };
    client.send_request(request.body(()).unwrap(), !expects).unwrap()
}

/// The next interim answer; `None` when the answer proper has come.
async fn next(answer: &mut ResponseFuture) -> Option<Response<()>> {
    let next = poll_fn(|cx| answer.poll_informational(cx));
    tokio::time::timeout(WAIT_TIMEOUT, next).await.expect("an answer in time").map(Result::unwrap)
}

async fn all(answer: &mut ResponseFuture) -> Vec<Response<()>> {
    let mut reported = Vec::new();
    while let Some(interim) = next(answer).await {
        reported.push(interim);
    }
    reported
}

async fn proper(answer: ResponseFuture) -> (StatusCode, Bytes) {
    let answer = tokio::time::timeout(WAIT_TIMEOUT, answer).await.expect("an answer in time").unwrap();
    let (head, mut body) = answer.into_parts();
    let mut bytes = Vec::new();
    while let Some(piece) = tokio::time::timeout(WAIT_TIMEOUT, body.data()).await.expect("a body in time") {
        bytes.extend_from_slice(&piece.unwrap());
    }
    (head.status, bytes.into())
}

#[tokio::test]
async fn interim_answers_come_before_the_answer_over_http2() {
    let (gateway, token, leave) = stage().await;
    let mut client = connect(&gateway).await;
    let mut exchanges: Vec<_> = (0..3).map(|_| ask(&mut client, "/hints/wait", &token.secret, false).0).collect();
    for answer in &mut exchanges {
        let hints = next(answer).await.expect("hints");
        assert_eq!(hints.status(), StatusCode::EARLY_HINTS);
        let fields: Vec<_> =
            hints.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        // Hop-by-hop headers, limit headers and those that the route removes are gone.
        assert_eq!(fields, [("link", "</a.css>; rel=preload"), ("set-cookie", "a=1"), ("set-cookie", "b=2")]);
        // And nothing else yet.
        let early = poll_fn(|cx| Poll::Ready(answer.poll_informational(cx).is_ready())).await;
        assert!(!early);
    }
    leave.add_permits(3);
    for mut answer in exchanges {
        assert!(next(&mut answer).await.is_none());
        assert_eq!(proper(answer).await, (StatusCode::OK, Bytes::from("done")));
    }
}

#[tokio::test]
async fn interim_answers_that_come_with_the_answer_go_first_over_http2() {
    let (gateway, token, _) = stage().await;
    let mut client = connect(&gateway).await;
    for _ in 0..50 {
        let mut answer = ask(&mut client, "/hints", &token.secret, false).0;
        let reported: Vec<_> = all(&mut answer).await.iter().map(Response::status).collect();
        assert_eq!(reported, [StatusCode::EARLY_HINTS]);
        assert_eq!(proper(answer).await, (StatusCode::OK, Bytes::from("done")));
    }
}

#[tokio::test]
async fn the_gateways_own_interim_answers_are_left_out_and_a_flood_is_cut_over_http2() {
    let (gateway, token, _) = stage().await;
    let mut client = connect(&gateway).await;
    let mut answer = ask(&mut client, "/others", &token.secret, false).0;
    let reported: Vec<_> = all(&mut answer).await.iter().map(|reported| reported.status().as_u16()).collect();
    assert_eq!(reported, [102, 199]);
    let mut answer = ask(&mut client, "/flood", &token.secret, false).0;
    assert_eq!(all(&mut answer).await.len(), 16);
    assert_eq!(proper(answer).await, (StatusCode::OK, Bytes::from("done")));
}

#[tokio::test]
async fn a_reset_between_interim_answers_harms_no_other_stream() {
    let (gateway, token, leave) = stage().await;
    let mut client = connect(&gateway).await;
    let (mut answer, mut stream) = ask(&mut client, "/hints/wait", &token.secret, false);
    next(&mut answer).await.expect("hints");
    stream.send_reset(Reason::CANCEL);
    drop(answer);
    eventually("the exchange to be over", async || {
        let line = gateway.log().into_iter().find(|line| line["path"] == "/hints/wait");
        line.filter(|line| line["status"] == 499)
    })
    .await;
    leave.add_permits(1);
    // Hints that come while their stream is being reset go nowhere.
    for _ in 0..20 {
        let (answer, mut stream) = ask(&mut client, "/flood", &token.secret, false);
        tokio::task::yield_now().await;
        stream.send_reset(Reason::CANCEL);
        drop(answer);
    }
    let mut answer = ask(&mut client, "/hints", &token.secret, false).0;
    assert_eq!(all(&mut answer).await.len(), 1);
    assert_eq!(proper(answer).await, (StatusCode::OK, Bytes::from("done")));
}

async fn upload_stage(limits: &[&str]) -> (Upstream, Gateway, Token) {
    let upstream = Upstream::start().await;
    let site = Site::in_memory(upstream.address, "  - { path: \"/{*rest}\", upstream: up }");
    let token = site.token_with(&[], limits);
    let gateway = site.serve();
    (upstream, gateway, token)
}

#[tokio::test]
async fn a_client_gets_100_when_its_request_is_admitted_over_http2() {
    let (upstream, gateway, token) = upload_stage(&["--limit", "minute=2/1m"]).await;
    let mut client = connect(&gateway).await;
    for _ in 0..2 {
        let (mut answer, mut body) = ask(&mut client, "/upload", &token.secret, true);
        let reported = next(&mut answer).await.expect("100");
        assert_eq!((reported.status(), reported.headers().len()), (StatusCode::CONTINUE, 0));
        body.send_data(Bytes::from("hello"), true).unwrap();
        assert!(next(&mut answer).await.is_none(), "once is enough");
        let (status, reported) = proper(answer).await;
        let reported: serde_json::Value = serde_json::from_slice(&reported).unwrap();
        assert_eq!((status, &reported["body_length"]), (StatusCode::OK, &5.into()), "{reported}");
        assert_eq!(reported["headers"].get("expect"), None);
    }
    // With limits used up, and without a good token: what is refused is not asked for.
    for (secret, expected) in [(&*token.secret, 429), ("cg_nobody", 401)] {
        let (mut answer, _body) = ask(&mut client, "/upload", secret, true);
        assert!(next(&mut answer).await.is_none());
        assert_eq!(proper(answer).await.0, expected);
    }
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test]
async fn clients_that_do_not_expect_100_get_none() {
    let (_upstream, gateway, token) = upload_stage(&[]).await;
    let mut client = connect(&gateway).await;
    // A request without a body does not wait.
    let request = Request::post("https://localhost/upload")
        .header("authorization", format!("Bearer {}", token.secret))
        .header("expect", "100-continue");
    let (mut answer, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
    assert!(next(&mut answer).await.is_none());
    assert_eq!(proper(answer).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_node_client_waits_for_100() {
    let (_upstream, gateway, token) = upload_stage(&[]).await;
    let script = r#"
        const [url, certificate, token] = process.argv.slice(1);
        const client = require("http2").connect(url, { ca: require("fs").readFileSync(certificate) });
        const told = [];
        const upload = client.request({ ":method": "POST", ":path": "/upload", authorization: `Bearer ${token}`, expect: "100-continue" });
        upload.on("continue", () => { told.push(100); upload.end("hello"); });
        upload.on("response", (headers) => told.push(headers[":status"]));
        let text = "";
        upload.on("data", (piece) => (text += piece));
        upload.on("end", () => { console.log(told.join(), JSON.parse(text).body_length); client.close(); });
        upload.on("error", (error) => { console.error(error); process.exit(1); });
    "#;
    let mut command = Command::new("node");
    command.args([
        "-e",
        script,
        "--",
        &gateway.url(""),
        gateway.site.path("cert.pem").to_str().unwrap(),
        &token.secret,
    ]);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(WAIT_TIMEOUT, output).await.expect("an end in time").expect("node is installed");
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(out.trim(), "100,200 5", "{error}");
}

/// A body that its client gives up half-way must not look whole to the upstream, whatever the client calls it.
#[tokio::test]
async fn an_upload_that_is_reset_is_never_completed() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let route = "  - { path: \"/{*rest}\", upstream: up }";
    let site = Site::in_memory(upstream.local_addr().unwrap(), route);
    let token = site.token(&[]);
    let gateway = site.serve();
    let reasons = [Reason::CANCEL, Reason::NO_ERROR, Reason::INTERNAL_ERROR];
    // The answer may have begun by then.
    for (reason, has_begun) in reasons.into_iter().flat_map(|reason| [(reason, false), (reason, true)]) {
        let mut client = connect(&gateway).await;
        let (mut answer, mut body) = ask(&mut client, "/upload", &token.secret, true);
        next(&mut answer).await.expect("100");
        body.send_data(Bytes::from("half of it"), false).unwrap();
        let received = async {
            let (mut socket, _) = upstream.accept().await.unwrap();
            let mut received = Vec::new();
            while !String::from_utf8_lossy(&received).contains("half of it") {
                assert!(socket.read_buf(&mut received).await.unwrap() > 0);
            }
            if has_begun {
                socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n").await.unwrap();
                let answer = answer.await.unwrap();
                assert_eq!(answer.status(), StatusCode::OK);
            }
            body.send_reset(reason);
            let _ = socket.read_to_end(&mut received).await;
            String::from_utf8(received).unwrap()
        };
        let received = tokio::time::timeout(WAIT_TIMEOUT, received).await.expect("the connection ends in time");
        assert!(
            received.contains("transfer-encoding: chunked\r\n") && !received.contains("0\r\n\r\n"),
            "{reason}: {received}"
        );
    }
    let lines = gateway.access("/upload", 6).await;
    let half = |status: u16| lines.iter().filter(|line| line["status"] == status).count();
    assert_eq!((half(499), half(200)), (3, 3), "{lines:?}");
}
