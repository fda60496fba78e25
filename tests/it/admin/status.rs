//! What the admin listener shows of a running instance: its status, events, routes and configuration, and the command's screen.

use std::time::Duration;

use reqwest::Method;
use rustix::process::Signal;
use serde_json::Value;

use super::{AdminToken, private_site, request, send, site};
use crate::support::client::{get, http2};
use crate::support::eventually;
use crate::support::gateway::{Gateway, PROGRAM, Site};
use crate::support::redis::RedisServer;
use crate::support::upstream::Upstream;

async fn json(gateway: &Gateway, path: &str) -> Value {
    let (status, _, body) = send(request(gateway, Method::GET, path)).await;
    assert_eq!(status, 200, "{body}");
    body
}

fn codes(status: &Value) -> Vec<String> {
    let warnings = status["warnings"].as_array().unwrap().iter();
    warnings.map(|warning| warning["code"].as_str().unwrap().to_owned()).collect()
}

/// The status once it fits.
async fn status_when(gateway: &Gateway, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    eventually(what, async || {
        let status = json(gateway, "/status").await;
        fits(&status).then_some(status)
    })
    .await
}

fn command(gateway: &Gateway, arguments: &[&str]) -> (String, Option<i32>) {
    let admin = gateway.admin.to_string();
    let output =
        std::process::Command::new(PROGRAM).args(["status", "--admin", &admin]).args(arguments).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_instance_is_well_and_shows_its_traffic() {
    let upstream = Upstream::start().await;
    let site = Site::in_memory(upstream.address, "  - { path: \"/{*rest}\", upstream: up }");
    let token = site.token_with(&[], &["--limit", "minute=5/1m"]);
    let gateway = site.serve();
    let client = http2(&gateway);
    for _ in 0..9 {
        get(&client, &gateway, "/echo", &token).await;
    }
    let status = status_when(&gateway, "rates", |status| {
        let rates = &status["traffic"]["statuses"];
        rates["2xx"].as_f64() > Some(0.0) && rates["4xx"].as_f64() > Some(0.0)
    })
    .await;
    assert_eq!(
        (&status["well"], &status["warnings"], &status["draining"]),
        (&true.into(), &Value::Array(vec![]), &false.into())
    );
    assert_eq!((&status["pid"], &status["drain"]), (&gateway.pid().into(), &Value::Null));
    assert_eq!((&status["store"]["kind"], &status["store"]["token_file_good"]), (&"memory".into(), &true.into()));
    assert_eq!(status["certificates"][0]["names"], serde_json::json!(["localhost", "127.0.0.1"]));
    assert!(status["certificates"][0]["days_left"].as_i64() > Some(300), "{status}");
    assert_eq!(status["instances"][0]["id"], status["instance"]);
    assert_eq!(status["upstreams"][0]["endpoints"][0]["state"], "up");
    assert!(status["traffic"]["latency_ms"]["p99"].as_f64() > Some(0.0), "{status}");
    let decided = status["traffic"]["decisions"].as_array().unwrap().iter();
    let denied = decided.filter(|it| it["outcome"] == "denied").filter_map(|it| it["per_second"].as_f64()).sum::<f64>();
    assert!(denied > 0.0, "{status}");
    assert!(
        status["process"]["memory_bytes"].as_u64() > Some(1_000_000) && status["process"]["threads"].as_u64() > Some(2)
    );

    let routes = json(&gateway, "/api/routes").await;
    let route = &routes["routes"][0];
    assert_eq!(
        (&route["path"], &route["upstreams"][0]["upstream"], &route["access"]),
        (&"/{*rest}".into(), &"up".into(), &"token".into())
    );
    assert!(route["requests_per_second"].as_f64() > Some(0.0) && route["latency_ms"]["p50"].is_number(), "{route}");
    let (screen, code) = command(&gateway, &[]);
    assert!(
        screen.contains(" is well: up ") && screen.contains("\nUpstreams ") && !screen.contains('\u{1b}'),
        "{screen}"
    );
    assert_eq!(code, Some(0));
    let (text, code) = command(&gateway, &["--json"]);
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&shown["pid"], code), (&gateway.pid().into(), Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_a_warning_with_its_date() {
    let mut redis = RedisServer::start();
    let store = format!(
        "store: {{ redis: {{ url: \"redis://default:hunter2hunter2@{}\" }} }}",
        redis.url().trim_start_matches("redis://")
    );
    redis.say::<()>(&["CONFIG", "SET", "requirepass", "hunter2hunter2"]);
    let site = private_site(&store, "admin: { anonymous: write }");
    site.replace(
        "endpoints: [\"http://127.0.0.1:9\"]",
        "endpoints: [\"http://127.0.0.1:9\"], health: { path: /, interval: 1s }",
    );
    let gateway = site.serve();
    let status = status_when(&gateway, "a ping", |status| status["store"]["latency_ms"]["p50"].is_number()).await;
    assert_eq!((&status["store"]["connected"], &status["store"]["topology"]), (&true.into(), &"single".into()));
    assert!(!status.to_string().contains("hunter2"), "{status}");
    status_when(&gateway, "an endpoint to be out", |status| codes(status) == ["endpoint_out"]).await;

    // A reload that is refused.
    std::fs::write(site.path("good.yaml"), std::fs::read(site.config()).unwrap()).unwrap();
    site.replace("upstream: up", "upstream: down");
    let status =
        status_when(&gateway, "a refused reload", |status| codes(status).contains(&"reload_failed".to_owned())).await;
    assert_eq!(status["configuration"]["last_reload"]["successful"], false);
    let failed = status["warnings"].as_array().unwrap().iter().find(|it| it["code"] == "reload_failed").unwrap();
    assert_eq!(failed["since"], status["configuration"]["last_reload"]["at"]);
    // What is shown is in force, and has no secret.
    let shown = json(&gateway, "/api/configuration").await;
    let text = shown["text"].as_str().unwrap();
    assert!(text.contains("upstream: up") && text.contains("[redacted]") && !text.contains("hunter2"), "{text}");
    std::fs::copy(site.path("good.yaml"), site.config()).unwrap();
    status_when(&gateway, "a good reload", |status| !codes(status).contains(&"reload_failed".to_owned())).await;

    redis.kill();
    let status = status_when(&gateway, "an outage", |status| codes(status)[0] == "store_unreachable").await;
    assert_eq!((&status["store"]["connected"], &status["well"]), (&false.into(), &false.into()));
    assert_eq!(status["warnings"][0]["since"], status["store"]["since"]);
    let (screen, code) = command(&gateway, &[]);
    assert!(screen.contains("is not well") && screen.contains("! Redis does not answer"), "{screen}");
    assert_eq!(code, Some(1));
}

/// Reads server-sent events: their names and data.
struct Events(reqwest::Response, String);

impl Events {
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.1.split_once("\n\n") {
                let (name, data) = event.split_once('\n').unwrap();
                let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
                let name = name.strip_prefix("event: ").unwrap().to_owned();
                self.1 = rest.to_owned();
                return Some((name, data));
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.0.chunk()).await.expect("an event in time");
            self.1 += std::str::from_utf8(&chunk.unwrap()?).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_until_the_drain_or_a_change_of_the_tokens() {
    let ops = AdminToken::new();
    let site = site(&format!("admin: {{ anonymous: read, tokens: [{}] }}", ops.line("ops", "write")), false);
    site.token(&[]);
    let mut gateway = site.serve();
    let listen = async |gateway: &Gateway| {
        let response = request(gateway, Method::GET, "/api/events").send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        Events(response, String::new())
    };
    let mut events = listen(&gateway).await;
    let (name, history) = events.next().await.unwrap();
    assert_eq!((&*name, &history["interval_seconds"]), ("history", &2.into()));
    for _ in 0..3 {
        let (name, status) = events.next().await.unwrap();
        assert_eq!((&*name, &status["pid"], &status["well"]), ("status", &gateway.pid().into(), &true.into()));
    }
    let (_, status) = events.next().await.unwrap();
    assert!(status["point"]["statuses"]["2xx"].is_number(), "{status}");
    let me = json(&gateway, "/api/me").await;
    assert_eq!((&me["name"], &me["role"]), (&Value::Null, &"read".into()));
    let (_, _, me) = send(request(&gateway, Method::GET, "/api/me").bearer_auth(&ops.secret)).await;
    assert_eq!((&me["name"], &me["role"]), (&"ops".into(), &"write".into()));

    let mut others = Vec::new();
    for _ in 0..31 {
        others.push(listen(&gateway).await);
    }
    let (status, headers, body) = send(request(&gateway, Method::GET, "/api/events")).await;
    assert_eq!((status, &body["code"]), (503, &"too_many_listeners".into()));
    assert!(headers.contains_key("retry-after"));
    drop(others);

    site.replace("anonymous: read", "anonymous: write");
    let end = loop {
        let (name, data) = events.next().await.unwrap();
        if name == "end" {
            break data;
        }
    };
    assert_eq!((&end["reason"], events.next().await), (&"reconnect".into(), None));
    let mut events = eventually("room for another listener", async || {
        let response = request(&gateway, Method::GET, "/api/events").send().await.unwrap();
        (response.status() == 200).then(|| Events(response, String::new()))
    })
    .await;
    gateway.signal(Signal::TERM);
    let mut last = Value::Null;
    while let Some((_, data)) = events.next().await {
        last = data;
    }
    assert_eq!(last["reason"], "draining");
    assert_eq!(gateway.wait().await.code(), Some(0));
}
