//! gRPC, with the grpcio package on both sides: calls of all four kinds, and refusals that its clients understand.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{site, stage};
use crate::support::client::http2;
use crate::support::gateway::{Gateway, Token};
use crate::support::{eventually_blocking, upstream::Upstream};

/// Debian's Python, whose packages tests/run installs.
const PYTHON: &str = "/usr/bin/python3";

/// A gRPC server; dropped, it is gone.
pub(super) struct Server {
    child: Child,
    pub(super) endpoint: String,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/foreign").join(name)
}

pub(super) fn server() -> Server {
    let mut command = Command::new(PYTHON);
    let mut child = command.arg(script("grpc_server.py")).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let port = lines.next().expect("it prints its port (tests/run installs python3-grpcio)");
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.try_for_each(|line| sender.send(line)));
    Server { child, endpoint: format!("http://127.0.0.1:{port}"), lines: receiver }
}

/// The report of the client on an action.
fn client(gateway: &Gateway, token: &str, action: &str) -> Value {
    let mut command = Command::new(PYTHON);
    command.arg(script("grpc_client.py")).arg(gateway.https.port().to_string());
    command.arg(gateway.site.path("cert.pem")).args([token, action]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{action}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn grpc_stage(upstream: &str, route: &str) -> (Server, Gateway, Token) {
    let server = server();
    let (gateway, token) =
        stage(std::slice::from_ref(&server.endpoint), &format!(", protocol: http2{upstream}"), route);
    (server, gateway, token)
}

#[tokio::test]
async fn calls_of_all_kinds_pass_with_their_metadata() {
    let (server, gateway, token) = grpc_stage("", "");
    let ask = |action| client(&gateway, &token.secret, action);
    let reported = ask("shout");
    assert_eq!((&reported["code"], &reported["answer"]), (&json!("OK"), &json!("HELLO")));
    assert_eq!(reported["first"]["x-first"], "1");
    assert_eq!(reported["first"]["x-ratelimit-limit"], "100000");
    assert_eq!((&reported["last"]["x-last"], &reported["last"]["x-sum-bin"]), (&json!("2"), &json!("0001ff")));
    assert_eq!(ask("large"), 8 << 20);
    let reported = ask("fail");
    let wanted = ("FAILED_PRECONDITION", "the line is büsy 100%", "2");
    let got = (&reported["code"], &reported["details"], &reported["last"]["x-last"]);
    assert_eq!(got, (&json!(wanted.0), &json!(wanted.1), &json!(wanted.2)));
    assert_eq!(ask("unknown")["code"], "UNIMPLEMENTED");
    let reported = ask("streams");
    assert_eq!(reported["count"], json!((0..1000).collect::<Vec<_>>()));
    assert_eq!((&reported["total"], &reported["code"]), (&json!(20_000_000), &json!("OK")));
    let reported = ask("talk");
    assert_eq!((&reported["heard"], &reported["code"]), (&json!((0..100).collect::<Vec<_>>()), &json!("OK")));
    let reported = ask("told")["answer"].as_str().unwrap().to_owned();
    assert!(reported.contains("x-callgate-token-id") && !reported.contains("Bearer"), "{reported}");
    // Deadlines and cancellations reach the service.
    assert_eq!(ask("wait")["code"], "DEADLINE_EXCEEDED");
    assert_eq!(ask("give-up")["code"], "CANCELLED");
    for _ in 0..2 {
        eventually_blocking("the service to hear of it", || {
            server.lines.try_recv().ok().filter(|line| line == "cancelled")
        });
    }
}

#[tokio::test]
async fn a_call_is_idle_only_when_both_sides_are() {
    for (call, code) in [("{ idle_timeout: 1s }", false), ("{ idle_timeout: none }", true)] {
        // The idle timeout of plain bodies does not apply to calls.
        let (_server, gateway, token) = grpc_stage(", idle_timeout: 1s", &format!(", call: {call}"));
        let reported = client(&gateway, &token.secret, "talk-pause");
        assert_eq!(reported["code"] == "OK", code, "{call}: {reported}");
        assert_eq!(reported["heard"].as_array().unwrap().len(), if code { 100 } else { 99 }, "{call}");
        // The client says nothing for three seconds, but the service does.
        let reported = client(&gateway, &token.secret, "listen");
        assert_eq!(
            (reported["heard"].as_array().unwrap().len(), &reported["code"]),
            (6, &json!("OK")),
            "{call}: {reported}"
        );
    }
}

#[tokio::test]
async fn a_call_ends_at_its_maximum_duration() {
    let (_server, gateway, token) = grpc_stage("", ", call: { max_duration: 1s }");
    let reported = client(&gateway, &token.secret, "listen");
    assert_eq!(reported["code"], "DEADLINE_EXCEEDED", "{reported}");
    assert!(reported["heard"].as_array().unwrap().len() < 6, "{reported}");
    let line = gateway.access("/voice.Calls/Tick", 1).await.remove(0);
    assert_eq!(
        (&line["ended_by"], &line["error"]),
        (&json!("gateway"), &json!("the call reached its maximum duration"))
    );
}

#[tokio::test]
async fn rejections_have_the_form_of_grpc() {
    let server = server();
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let site = site(std::slice::from_ref(&server.endpoint), ", protocol: http2", ", permission: \"calls:read\"");
    let routes = "routes: [{ path: /voice.Calls/Fail, upstream: up, methods: [GET] }, { path: /voice.Calls/Unknown, upstream: gone }, \
                  { path: /voice.Calls/Wait, upstream: up, first_byte_timeout: 1s }, { path: /voice.Calls/Total, upstream: up, max_body: 1KB }, ";
    site.replace("routes: [", routes);
    site.replace("upstreams: {", &format!("upstreams: {{ gone: {{ endpoints: [\"http://{dead}\"] }},"));
    let (poor, good) = (site.token(&[]), site.token_with(&["calls:read"], &["--limit", "minute=3/1m"]));
    let plenty = site.token(&["calls:read"]);
    let gateway = site.serve();
    for (token, action, code, details) in [
        ("", "shout", "UNAUTHENTICATED", "Bearer token"),
        ("kal_live_nonsense", "shout", "UNAUTHENTICATED", "not valid"),
        (&poor.secret, "shout", "PERMISSION_DENIED", "lacks the permission \"calls:read\""),
        (&plenty.secret, "fail", "UNIMPLEMENTED", "method"),
        (&plenty.secret, "unknown", "UNAVAILABLE", "did not answer properly"),
        (&plenty.secret, "wait-long", "DEADLINE_EXCEEDED", "in time"),
    ] {
        let reported = client(&gateway, token, action);
        assert_eq!(reported["code"], code, "{action}: {reported}");
        assert!(reported["details"].as_str().unwrap().contains(details), "{action}: {reported}");
    }
    for number in 0..4 {
        let reported = client(&gateway, &good.secret, "shout");
        assert_eq!(reported["code"], if number < 3 { "OK" } else { "RESOURCE_EXHAUSTED" });
        if number == 3 {
            let all = &reported["last"];
            let (pushback, wait) = (all["grpc-retry-pushback-ms"].as_str(), all["retry-after"].as_str().unwrap());
            assert_eq!((pushback, &all["x-ratelimit-remaining"]), (Some(&*format!("{wait}000")), &json!("0")), "{all}");
        }
    }
    let lines = gateway.access("/voice.Calls/Shout", 7).await;
    let statuses: Vec<_> = lines.iter().map(|line| line["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [401, 401, 403, 200, 200, 200, 429]);
}

#[tokio::test]
async fn other_clients_get_json() {
    let upstream = Upstream::start().await;
    let (gateway, _) = stage(&[format!("http://{}", upstream.address)], "", "");
    for kind in ["application/grpc-web+proto", "application/grpcx", "application/json"] {
        let answer = http2(&gateway).post(gateway.url("/x")).header("content-type", kind).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{kind}");
        assert_eq!(answer.json::<Value>().await.unwrap()["code"], "unauthenticated");
    }
}
