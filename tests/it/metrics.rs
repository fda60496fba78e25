//! The metrics page after mixed traffic: Prometheus takes it, it says what it should, and neither it nor the log says more.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use futures_util::future::join_all;
use http::Method;
use rustix::process::Signal;

use crate::support::client::{exchange, get, http1, http2};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::redis::RedisServer;
use crate::support::upstream::Upstream;

/// Stands in everything secret that these tests send.
const MARK: &str = "s3cr3tmark";

const NAMES: [&str; 34] = [
    "callgate_requests_total",
    "callgate_request_duration_seconds",
    "callgate_upstream_duration_seconds",
    "callgate_upstream_failures_total",
    "callgate_upstream_endpoint_up",
    "callgate_upstream_ejections_total",
    "callgate_upstream_retries_total",
    "callgate_upstream_rejections_total",
    "callgate_upstream_waiting",
    "callgate_upstream_in_flight",
    "callgate_decisions_total",
    "callgate_decision_duration_seconds",
    "callgate_store_up",
    "callgate_store_clock_skew_seconds",
    "callgate_unmerged_admissions",
    "callgate_merged_admissions_total",
    "callgate_dropped_admissions_total",
    "callgate_auth_total",
    "callgate_calls_open",
    "callgate_call_duration_seconds",
    "callgate_call_bytes_total",
    "callgate_call_messages_total",
    "callgate_connections_open",
    "callgate_connections_refused_total",
    "callgate_tls_handshake_duration_seconds",
    "callgate_tls_handshake_failures_total",
    "callgate_certificate_expiry_timestamp_seconds",
    "callgate_draining",
    "callgate_drain_left",
    "callgate_log_lines_dropped_total",
    "callgate_build_info",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
];

struct Stage {
    _redis: RedisServer,
    _upstream: Upstream,
    gateway: Gateway,
    tokens: Vec<Token>,
}

/// A gateway on a Redis whose password is a secret too, after some of everything that can happen.
async fn after_mixed_traffic() -> Stage {
    let password = format!("redis-{MARK}");
    let redis = RedisServer::start_with(&["--requirepass", &password]);
    let upstream = Upstream::start().await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let site = Site::new(&format!(
        "store: {{ redis: {{ url: \"redis://:{password}@127.0.0.1:{}\", deadline: 5s }} }}\nroutes:\n\
           - {{ path: /echo, permission: \"calls:read\", upstream: up }}\n\
           - {{ path: \"/status/{{n}}\", upstream: up }}\n\
           - {{ path: /public, auth: none, upstream: up }}\n\
           - {{ path: /dead, upstream: dead }}\n\
         upstreams: {{ up: {{ endpoints: [\"http://{}\"] }}, dead: {{ endpoints: [\"http://{dead}\"] }} }}\n\
         log: {{ level: debug }}",
        redis.port(),
        upstream.address
    ));
    let gateway = site.serve();
    let tokens = vec![site.token(&["calls:*"]), site.token_with(&[], &["--limit", "minute=4/1m"]), site.token(&[])];
    assert!(site.run(&["token", "revoke", "--yes", &tokens[2].id]).status.success());
    for client in [http1(&gateway), http2(&gateway)] {
        for token in &tokens {
            for path in ["/echo?access_token=", "/status/503", "/nowhere", "/dead", "/public", "/a/../b"] {
                get(&client, &gateway, &format!("{path}{MARK}"), token).await;
                get(&client, &gateway, path, token).await;
            }
        }
        let ask = || client.post(gateway.url(&format!("/echo?token={MARK}")));
        for request in [
            ask().bearer_auth(format!("kal_live_{MARK}")),
            ask().bearer_auth(format!("9|{MARK}")),
            ask().bearer_auth(format!("{} {MARK}", tokens[0].secret)),
            ask().basic_auth("user", Some(MARK)),
            ask().header("cookie", format!("session={MARK}")).header("x-api-key", MARK),
            ask().bearer_auth(&tokens[0].secret).body(format!("{{\"password\":\"{MARK}\"}}")),
        ] {
            request.send().await.unwrap();
        }
    }
    for bad in ["GET / HTTP/1.1\r\nhost: a b\r\n", "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n"] {
        exchange(&gateway, format!("{bad}authorization: Bearer {}\r\nx: {MARK}\r\n\r\n", tokens[0].secret).as_bytes())
            .await;
    }
    Stage { _redis: redis, _upstream: upstream, gateway, tokens }
}

#[tokio::test]
async fn prometheus_parses_the_page_and_every_metric_is_present() {
    let stage = after_mixed_traffic().await;
    let (status, page) = stage.gateway.admin("/metrics").await;
    assert_eq!(status, 200);
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().expect("promtool is installed (tests/run does that)");
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success() && said.is_empty(), "{said}");
    for name in NAMES {
        assert!(page.contains(&format!("# HELP {name} ")) && page.contains(&format!("# TYPE {name} ")), "no {name}");
        let samples = page.lines().filter(|line| line.starts_with(name)).count();
        assert!(samples > 0, "{name} has no sample");
    }
    for series in [
        r#"callgate_requests_total{method="GET",route="/echo",status="200"}"#,
        r#"callgate_requests_total{method="GET",route="/public",status="200"}"#,
        r#"callgate_requests_total{method="GET",route="/dead",status="502"}"#,
        r#"callgate_requests_total{method="GET",route="/status/{n}",status="503"}"#,
        r#"callgate_requests_total{method="GET",route="none",status="404"}"#,
        r#"callgate_requests_total{method="GET",route="/status/{n}",status="429"}"#,
        r#"callgate_decisions_total{outcome="denied",source="deny_cache"}"#,
        r#"callgate_upstream_failures_total{kind="connect",upstream="dead"}"#,
        r#"callgate_store_up"#,
    ] {
        assert!(stage.gateway.metric(series).await > Some(0.0), "{series} is not counted:\n{page}");
    }
}

#[tokio::test]
async fn no_secret_is_in_the_metrics_or_in_the_log_at_any_level() {
    let stage = after_mixed_traffic().await;
    // The last lines are there once this one is.
    get(&http1(&stage.gateway), &stage.gateway, "/status/204", &stage.tokens[0]).await;
    stage.gateway.access("/status/204", 1).await;
    let (_, page) = stage.gateway.admin("/metrics").await;
    let log = stage.gateway.output();
    for token in &stage.tokens {
        assert!(!page.contains(&token.id), "a token's id is a label");
        assert!(!page.contains(&token.secret) && !log.contains(&token.secret));
        // Not even the part of it that is no id.
        let tail = &token.secret[token.secret.len() - 20..];
        assert!(!page.contains(tail) && !log.contains(tail));
    }
    assert!(log.contains(&stage.tokens[0].id), "the access log names tokens by their id");
    let reported: Vec<&str> = log.lines().filter(|line| line.contains(MARK)).collect();
    // A path is no secret.
    let paths = [format!("\"path\":\"/nowhere{MARK}\""), format!("\"path\":\"/status/503{MARK}\"")];
    let others = [format!("\"path\":\"/dead{MARK}\""), format!("\"path\":\"/public{MARK}\""), format!("/b{MARK}\"")];
    for line in reported {
        let rest = paths.iter().chain(&others).fold(line.to_owned(), |line, path| line.replace(path, ""));
        assert!(!rest.contains(MARK), "{line}");
    }
    assert!(!page.contains(MARK), "{page}");
}

/// Four workers count side by side. Every sum is exact, nothing falls when the configuration is exchanged, and each request has its access
/// line when the process has ended.
#[tokio::test]
async fn counts_of_all_workers_are_exact_and_every_request_has_its_line() {
    const CLIENTS: usize = 24;
    const EACH: usize = 40;
    let upstream = Upstream::start().await;
    let site = Site::in_memory(upstream.address, "  - { path: /echo, auth: none, upstream: up }");
    site.replace("workers: 2", "workers: 4");
    let mut gateway = site.serve();
    for round in 1..=3 {
        let clients = (0..CLIENTS).map(|_| async {
            let client = http1(&gateway);
            for _ in 0..EACH {
                assert_eq!(client.get(gateway.url("/echo")).send().await.unwrap().status(), 200);
            }
        });
        join_all(clients).await;
        let all = (round * CLIENTS * EACH) as f64;
        for series in [
            r#"callgate_requests_total{method="GET",route="/echo",status="200"}"#,
            r#"callgate_request_duration_seconds_count{route="/echo"}"#,
            r#"callgate_request_duration_seconds_bucket{route="/echo",le="+Inf"}"#,
            r#"callgate_upstream_duration_seconds_count{upstream="up"}"#,
        ] {
            let is_exact = async || (gateway.metric(series).await == Some(all)).then_some(());
            eventually(&format!("{series} to be {all}"), is_exact).await;
        }
        site.replace(
            "  - { path: /echo,",
            &format!("  - {{ path: /other/{round}, upstream: up }}\n  - {{ path: /echo,"),
        );
        let reloaded = reqwest::Client::new().post(format!("http://{}/api/reload", gateway.admin));
        assert_eq!(reloaded.header("x-callgate-admin", "1").send().await.unwrap().status(), 200);
    }
    gateway.signal(Signal::TERM);
    assert!(gateway.wait().await.success());
    let lines = gateway.log().into_iter().filter(|line| line["message"] == "request" && line["path"] == "/echo");
    assert_eq!(lines.count(), 3 * CLIENTS * EACH);
}

/// Every series of the page, without its value.
async fn series(gateway: &Gateway) -> BTreeSet<String> {
    let (_, page) = gateway.admin("/metrics").await;
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

#[tokio::test]
async fn clients_cannot_create_series() {
    let stage = after_mixed_traffic().await;
    let client = http2(&stage.gateway);
    let before = series(&stage.gateway).await;
    for number in 0..200 {
        let method = Method::from_bytes(format!("M{number}").as_bytes()).unwrap();
        let request = client.request(method, stage.gateway.url(&format!("/random/{number}?q={number}")));
        let request = request.header("host", format!("h{number}.test")).header("user-agent", format!("agent/{number}"));
        let request = request.header("x-request-id", format!("id-{number}"));
        let request = if number % 2 == 0 { request.bearer_auth(&stage.tokens[0].secret) } else { request };
        request.send().await.unwrap();
    }
    let after = series(&stage.gateway).await;
    let new: Vec<&String> = after.difference(&before).collect();
    // The unknown methods are one method; with and without a token they were answered with a few statuses.
    assert!(new.iter().all(|series| series.contains("method=\"other\"")) && new.len() <= 5, "{new:?}");
    assert!(after.len() < 400, "{} series", after.len());
}
