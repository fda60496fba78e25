//! The access log: which requests have a line, in which form, and what it has of the client.

use std::fs::File;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::client::http1;
use crate::support::eventually;
use crate::support::gateway::{Gateway, PROGRAM, Site, Token};
use crate::support::upstream::Upstream;

const SAMPLED_OUT: &str = "callgate_log_lines_sampled_out_total";

fn site(upstream: &Upstream, log: &str) -> std::sync::Arc<Site> {
    Site::new(&format!(
        "store: memory\ntokens: {{ file: tokens.yaml }}\nlog: {log}\nroutes:\n\
           - {{ path: /echo, upstream: up }}\n\
           - {{ path: \"/status/{{n}}\", upstream: up, log: {{ sample: {{ success: 0 }} }} }}\n\
         upstreams: {{ up: {{ endpoints: [\"http://{}\"] }} }}",
        upstream.address
    ))
}

async fn send(gateway: &Gateway, token: &Token, path: &str, headers: &[(&str, &str)]) {
    let mut request = http1(gateway).get(gateway.url(path)).bearer_auth(&token.secret);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap();
}

/// The lines of requests so far.
fn requests(gateway: &Gateway) -> Vec<Value> {
    gateway.log().into_iter().filter(|line| line["message"] == "request").collect()
}

#[tokio::test]
async fn the_request_id_decides_which_good_requests_have_a_line() {
    let upstream = Upstream::start().await;
    let site = site(&upstream, "{ sample: { success: 0.5 } }");
    let token = site.token_with(&[], &["--limit", "minute=1000/1m"]);
    let gateway = site.serve();
    let ids: Vec<String> = (0..20).map(|number| format!("request-{number}")).collect();
    for id in &ids {
        send(&gateway, &token, "/echo", &[("x-request-id", id)]).await;
    }
    let (mut chosen, left): (Vec<String>, Vec<String>) =
        ids.into_iter().partition(|id| crc32fast::hash(id.as_bytes()) < 1 << 31);
    assert!(!chosen.is_empty() && !left.is_empty());
    // None of the good ones on this route, and each of the others.
    for status in [200, 204, 404, 503] {
        send(&gateway, &token, &format!("/status/{status}"), &[("x-request-id", &format!("status-{status}"))]).await;
    }
    chosen.extend(["status-404".to_owned(), "status-503".to_owned()]);
    chosen.sort_unstable();
    let lines = eventually("the lines", async || {
        let lines = requests(&gateway);
        (lines.len() >= chosen.len()).then_some(lines)
    });
    let lines = lines.await;
    let mut logged: Vec<&str> = lines.iter().map(|line| line["request_id"].as_str().unwrap()).collect();
    logged.sort_unstable();
    assert_eq!(logged, chosen);
    assert_eq!(gateway.metric(SAMPLED_OUT).await, Some(left.len() as f64 + 2.0));
    let failed = lines.iter().find(|line| line["request_id"] == "status-503").unwrap();
    assert_eq!(failed["level"], "WARN");
}

#[tokio::test]
async fn a_line_says_what_the_client_sent_and_a_reload_changes_how_much() {
    let upstream = Upstream::start().await;
    let site = site(&upstream, "{ max_text: 64, sample: { success: 1 } }");
    let token = site.token(&[]);
    let gateway = site.serve();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let agent = format!("probe {}", token.secret);
    send(&gateway, &token, "/echo", &[("traceparent", &parent), ("user-agent", &agent)]).await;
    let line = gateway.access("/echo", 1).await.remove(0);
    assert_eq!(line["trace_id"], trace);
    assert_eq!(line["host"], format!("localhost:{}", gateway.https.port()));
    assert_eq!(line["account"], "acme");
    assert_eq!(line["user_agent"], format!("probe kal_live_{}…", token.id));

    let long = "u".repeat(100);
    send(&gateway, &token, "/echo", &[("user-agent", &long)]).await;
    let line = gateway.access("/echo", 2).await.remove(1);
    assert_eq!(line["user_agent"], format!("{}…", "u".repeat(64)));

    // What is refused before its host is judged has it in its line, too.
    send(&gateway, &token, "/a//b", &[]).await;
    let line = gateway.access("/a//b", 1).await.remove(0);
    assert_eq!(line["host"], format!("localhost:{}", gateway.https.port()));

    site.replace("max_text: 64, sample: { success: 1 }", "max_text: 128, sample: { success: 0 }");
    gateway.signal(Signal::HUP);
    eventually("the reload", async || gateway.output().contains("was read again").then_some(())).await;
    send(&gateway, &token, "/echo", &[("user-agent", &long)]).await;
    eventually("a line to be left out", async || (gateway.metric(SAMPLED_OUT).await == Some(1.0)).then_some(())).await;
    send(&gateway, &token, "/status/404", &[("user-agent", &long)]).await;
    assert_eq!(gateway.access("/status/404", 1).await[0]["user_agent"], long);
    assert_eq!(gateway.access("/echo", 2).await.len(), 2);
}

#[tokio::test]
async fn the_command_line_chooses_the_form_and_a_file_has_no_colours() {
    let upstream = Upstream::start().await;
    let site = site(&upstream, "{ format: json }");
    let output = site.path("human.log");
    let mut command = tokio::process::Command::new(PROGRAM);
    command.args(["serve", "--log-format", "human", "--config"]).arg(site.config()).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(File::create(&output).unwrap());
    let _serving = command.spawn().unwrap();
    let read = || std::fs::read_to_string(&output).unwrap();
    let address = eventually("the gateway to serve", async || {
        Some(read().split_once("serving https=")?.1.split(' ').next()?.to_owned())
    });
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().danger_accept_invalid_certs(true).build().unwrap();
    client.get(format!("https://{}/echo", address.await)).send().await.unwrap();
    let line = eventually("the line", async || read().lines().find(|line| line.contains(" /echo ")).map(str::to_owned));
    let line = line.await;
    assert!(line.contains("Z 401 GET   ") && line.contains(" unauthenticated reason=missing "), "{line}");
    assert!(!read().contains('\u{1b}'));
}
