//! Health checks by gRPC's own protocol, answered by the grpcio-health-checking package, and by services that don't know it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{grpc, stage};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

/// Where tests/run installs the package.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/foreign/bin/python");

/// A server with a health service; dropped, it is gone.
struct Health {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    endpoint: String,
}

impl Health {
    fn start() -> Self {
        let mut command = Command::new(PYTHON);
        command.arg(grpc::script("health_server.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("tests/run installs grpcio-health-checking");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next().unwrap().unwrap();
        Self { child, lines, endpoint: format!("http://127.0.0.1:{port}") }
    }

    fn set(&mut self, service: &str, status: &str) {
        let line = format!("{service} {status}");
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
        assert_eq!(self.lines.next().unwrap().unwrap(), line);
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keys(ask: &str) -> String {
    format!(
        ", protocol: http2, health: {{ grpc: {ask}, interval: 100ms, timeout: 5s, healthy: 1, unhealthy: 1 }}, ejection: none"
    )
}

async fn is(gateway: &Gateway, state: &str) {
    eventually(&format!("it to be {state}"), async || {
        let (_, text) = gateway.admin("/api/upstreams").await;
        let report: Value = serde_json::from_str(&text).unwrap();
        (report["upstreams"][0]["endpoints"][0]["state"] == state).then_some(())
    })
    .await;
}

/// Why the endpoint is down, as the last line on that tells.
async fn why(gateway: &Gateway) -> String {
    is(gateway, "down").await;
    eventually("a line on that", async || {
        let lines = gateway.log().into_iter().rev();
        let mut down =
            lines.filter(|line| line["message"].as_str().is_some_and(|text| text.contains("fails its health")));
        down.next().map(|line| line["why"].as_str().unwrap().to_owned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_service_of_grpcio_answers_for_the_server_or_a_service() {
    for (ask, service) in [("true", "-"), ("voice.Calls", "voice.Calls")] {
        let mut server = Health::start();
        server.set(service, "NOT_SERVING");
        let (gateway, _) = stage(std::slice::from_ref(&server.endpoint), &keys(ask), "");
        assert_eq!(why(&gateway).await, "it says that it is NOT_SERVING");
        server.set(service, "SERVING");
        is(&gateway, "up").await;
        // The status of other services does not matter.
        server.set("another", "NOT_SERVING");
        server.set(service, "UNKNOWN");
        eventually("it to be down again", async || (why(&gateway).await == "it says that it is UNKNOWN").then_some(()))
            .await;
        server.set(service, "SERVING");
        is(&gateway, "up").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_service_or_the_protocol_an_endpoint_is_unhealthy() {
    let server = Health::start();
    let (gateway, _) = stage(std::slice::from_ref(&server.endpoint), &keys("no.such.Service"), "");
    assert_eq!(why(&gateway).await, "it knows no service of that name (grpc-status 5)");
    let server = grpc::server();
    let (gateway, _) = stage(std::slice::from_ref(&server.endpoint), &keys("true"), "");
    assert_eq!(why(&gateway).await, "it does not offer grpc.health.v1.Health (grpc-status 12)");
    let upstream = Upstream::http2(10).await;
    let (gateway, _) = stage(&[format!("http://{}", upstream.address)], &keys("true"), "");
    assert_eq!(why(&gateway).await, "it does not speak gRPC");
    let seen = upstream.seen().remove(0);
    assert_eq!((seen.method.as_str(), &seen.headers["content-type"]), ("POST", &"application/grpc".parse().unwrap()));
    assert!(seen.target.ends_with("/grpc.health.v1.Health/Check"), "{seen:?}");
    assert_eq!(
        (&seen.headers["te"], &seen.headers["grpc-timeout"]),
        (&"trailers".parse().unwrap(), &"5000m".parse().unwrap())
    );
}
