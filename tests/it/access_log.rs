//! The log: which requests have a line, in which form, what it has of the client, and where the lines go.

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

#[tokio::test]
async fn a_file_gets_the_lines_and_is_opened_again_even_by_a_reload_that_fails() {
    let upstream = Upstream::start().await;
    let site = site(&upstream, "{ file: callgate.log }");
    let token = site.token(&[]);
    let (path, moved) = (site.path("callgate.log"), site.path("callgate.log.1"));
    let mut command = tokio::process::Command::new(PROGRAM);
    command.args(["serve", "--config"]).arg(site.config()).kill_on_drop(true).stdin(Stdio::null());
    command.stdout(File::create(site.path("stdout")).unwrap());
    let serving = command.spawn().unwrap();
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    let lines = |path: &std::path::Path| -> Vec<Value> {
        read(path).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let address = eventually("the gateway to serve", async || {
        lines(&path).iter().find(|line| line["message"] == "serving")?["https"].as_str().map(str::to_owned)
    });
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (client, address) =
        (reqwest::Client::builder().danger_accept_invalid_certs(true).build().unwrap(), address.await);
    let logged = async |path: &std::path::Path, target: &str| {
        let request = client.get(format!("https://{address}{target}")).bearer_auth(&token.secret);
        request.send().await.unwrap();
        eventually("the line", async || lines(path).iter().any(|line| line["path"] == target).then_some(())).await;
    };
    logged(&path, "/echo").await;
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap()) & 0o777, 0o640);

    std::fs::rename(&path, &moved).unwrap();
    logged(&moved, "/status/404").await;
    site.replace("upstream: up", "upstream: down");
    let pid = rustix::process::Pid::from_raw(serving.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::HUP).unwrap();
    eventually("the new file", async || read(&path).contains("no upstream is called").then_some(())).await;
    logged(&path, "/nowhere").await;
    assert!(!read(&moved).contains("/nowhere"));
    assert_eq!(read(&site.path("stdout")), "");
}

#[tokio::test]
async fn what_prevents_a_start_is_a_line_of_the_log() {
    let upstream = Upstream::start().await;
    let site = site(&upstream, "{ level: warn }");
    let bound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = format!("admin: \"{}\"", bound.local_addr().unwrap());
    let text = std::fs::read_to_string(site.config()).unwrap();
    assert!(text.contains("admin: \"127.0.0.1:0\""), "{text}");
    let serve = |more: &[&str]| {
        let output = site.run(&[&["serve"], more].concat());
        assert_eq!(output.status.code(), Some(1));
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let levels = |out: &str| -> Vec<(String, String)> {
        let line = |line| serde_json::from_str::<Value>(line).unwrap();
        let word = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
        out.lines().map(line).map(|line| (word(&line, "level"), word(&line, "message"))).collect()
    };

    std::fs::write(site.config(), text.replace("admin: \"127.0.0.1:0\"", &admin)).unwrap();
    let (out, err) = serve(&[]);
    let (level, message) = levels(&out).pop().unwrap();
    assert_eq!((&*level, &*err), ("ERROR", ""));
    assert!(message.contains("can't listen on") && message.contains("(listen.admin)"), "{message}");

    std::fs::write(site.config(), text.replace("level: warn", "level: loud, max_txt: 1").replace("/echo", "/:echo"))
        .unwrap();
    let (out, err) = serve(&[]);
    let found = levels(&out);
    assert_eq!(
        found.iter().map(|(level, _)| &**level).collect::<Vec<_>>(),
        ["WARN", "ERROR", "ERROR", "WARN", "ERROR"],
        "{out}"
    );
    assert!(!out.contains("warning"), "{out}");
    assert!(found[1].1.contains(" log.level: must be a level"), "{out}");
    assert_eq!(err, "");
    let (out, err) = serve(&["--log-format", "human"]);
    assert_eq!((&*out, err.lines().count()), ("", 5), "{err}");
    assert!(err.starts_with("warning: ") && err.contains("\nerror: "), "{err}");
    let (_, err) = serve(&["--log-format", "human", "--color", "always"]);
    assert!(err.contains("\n\u{1b}[1;31merror:\u{1b}[0m "), "{err}");
}
