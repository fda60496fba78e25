//! Traces, as a collector receives them.

mod collector;

use std::net::SocketAddr;
use std::sync::Arc;

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use rustix::process::Signal;

use crate::support::client::http1;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::upstream::Upstream;
use collector::{Received, hex, number, text};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";

/// A site whose requests are traced. `settings` are further keys of `telemetry.otlp`.
fn site(upstreams: &[SocketAddr], collector: SocketAddr, settings: &str) -> Arc<Site> {
    let endpoints: Vec<_> = upstreams.iter().map(|address| format!("\"http://{address}\"")).collect();
    Site::new(&format!(
        "store: memory\ntokens: {{ file: tokens.yaml }}\n\
         telemetry: {{ otlp: {{ endpoint: \"http://{collector}\", {settings} }} }}\nroutes:\n  \
         - {{ path: \"/{{*rest}}\", upstream: up, name: everything }}\n\
         upstreams: {{ up: {{ endpoints: [{}] }} }}",
        endpoints.join(", ")
    ))
}

/// Sends a GET; `parent` is its `traceparent`. Returns the status.
async fn get(gateway: &Gateway, token: Option<&Token>, path: &str, parent: Option<&str>) -> u16 {
    let mut request = http1(gateway).get(gateway.url(path));
    if let Some(token) = token {
        request = request.bearer_auth(&token.secret);
    }
    if let Some(parent) = parent {
        request = request.header("traceparent", parent).header("tracestate", "vendor=1");
    }
    request.send().await.unwrap().status().as_u16()
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

/// The metric of spans with this outcome.
async fn counted(gateway: &Gateway, outcome: &str) -> u64 {
    let page = reqwest::get(format!("http://{}/metrics", gateway.admin)).await.unwrap().text().await.unwrap();
    let name = format!("callgate_trace_spans_total{{outcome=\"{outcome}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_request_becomes_spans_that_belong_to_the_trace_of_its_client() {
    let (upstream, (received, collector)) = (Upstream::start().await, Received::grpc().await);
    let site = site(&[upstream.address], collector, "service_name: edge, headers: { x-team: voice }");
    let (token, gateway) = (site.token(&[]), site.serve());
    assert_eq!(get(&gateway, Some(&token), "/echo?secret=1", Some(&format!("{PARENT}-01"))).await, 200);

    let spans = received.trace_of("/echo").await;
    assert_eq!(names(&spans), ["GET everything", "GET", "authenticate", "decide"]);
    let (own, attempt) = (&spans[0], &spans[1]);
    assert!(spans.iter().all(|span| hex(&span.trace_id) == "4bf92f3577b34da6a3ce929d0e0e4736"));
    assert_eq!(hex(&own.parent_span_id), "00f067aa0ba902b7");
    assert_eq!((own.kind(), attempt.kind()), (SpanKind::Server, SpanKind::Client));
    assert_eq!(number(&own.attributes, "http.response.status_code"), Some(200));
    assert_eq!(text(&own.attributes, "http.route"), Some("everything"));
    assert_eq!(text(&own.attributes, "callgate.token.id"), Some(&*token.id));
    assert_eq!(text(&attempt.attributes, "server.address"), Some("127.0.0.1"));
    assert_eq!(number(&attempt.attributes, "server.port"), Some(upstream.address.port().into()));
    assert_eq!(text(&spans[3].attributes, "callgate.decision.source"), Some("local"));
    // Children lie within their parent.
    for child in &spans[1..] {
        assert!(child.start_time_unix_nano >= own.start_time_unix_nano, "{}", child.name);
        assert!(child.end_time_unix_nano <= own.end_time_unix_nano, "{}", child.name);
        assert!(child.end_time_unix_nano >= child.start_time_unix_nano, "{}", child.name);
    }
    // The service belongs to the attempt.
    let seen = upstream.seen().pop().unwrap();
    let sent = format!("00-{}-{}-01", hex(&attempt.trace_id), hex(&attempt.span_id));
    assert_eq!(seen.headers["traceparent"], *sent);
    assert_eq!(seen.headers["tracestate"], "vendor=1");
    // Nothing of a query or a secret leaves.
    let all = format!("{:?}", received.messages.lock().unwrap());
    assert!(!all.contains("secret=1") && !all.contains(&token.secret));
    assert_eq!(received.resource("service.name").as_deref(), Some("edge"));
    assert_eq!(received.headers.lock().unwrap()["x-team"], "voice");
    eventually("the spans to be counted", async || (counted(&gateway, "exported").await >= 4).then_some(())).await;
}

#[tokio::test]
async fn refused_and_failed_requests_are_traced_with_each_of_their_attempts_over_http_too() {
    let (upstream, (received, collector)) = (Upstream::start().await, Received::http().await);
    // Nobody listens there.
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let site = site(&[dead, upstream.address], collector, "protocol: http");
    let (token, gateway) = (site.token(&[]), site.serve());
    assert_eq!(get(&gateway, None, "/nobody", None).await, 401);
    let refused = received.trace_of("/nobody").await;
    assert_eq!(names(&refused), ["GET everything", "authenticate"]);
    assert_eq!(text(&refused[0].attributes, "callgate.rejection"), Some("unauthenticated"));
    assert!(refused[0].parent_span_id.is_empty());
    assert_eq!(refused[0].status.as_ref().map_or(0, |status| status.code), 0, "4xx is no error of a server");

    // One of the two endpoints is tried first at random.
    let retried = eventually("a request with two attempts", async || {
        let path = format!("/retried/{}", received.spans().len());
        assert_eq!(get(&gateway, Some(&token), &path, None).await, 200);
        let spans = received.trace_of(&path).await;
        (names(&spans) == ["GET everything", "GET", "GET", "authenticate", "decide"]).then_some(spans)
    })
    .await;
    assert_eq!(number(&retried[1].attributes, "server.port"), Some(dead.port().into()));
    assert_eq!(text(&retried[1].attributes, "error.type"), Some("no_answer"));
    assert_eq!(number(&retried[2].attributes, "http.request.resend_count"), Some(1));
    assert_eq!(number(&retried[2].attributes, "http.response.status_code"), Some(200));
    // The service got what the second attempt is called.
    let seen = upstream.seen().pop().unwrap();
    assert!(seen.headers["traceparent"].to_str().unwrap().contains(&hex(&retried[2].span_id)));
}

#[tokio::test]
async fn the_client_decides_and_a_trace_that_is_not_sampled_is_passed_on_as_such() {
    let (upstream, (received, collector)) = (Upstream::start().await, Received::grpc().await);
    let site = site(&[upstream.address], collector, "sample: 0%");
    let (token, gateway) = (site.token(&[]), site.serve());
    for (path, parent) in [("/new", None), ("/unsampled", Some(format!("{PARENT}-00")))] {
        assert_eq!(get(&gateway, Some(&token), path, parent.as_deref()).await, 200);
        let sent = upstream.seen().pop().unwrap().headers["traceparent"].to_str().unwrap().to_owned();
        assert!(sent.ends_with("-00") && sent.len() == 55, "{sent}");
        assert_eq!(sent.starts_with(&PARENT[..36]), parent.is_some(), "{sent}");
    }
    // What can't be a parent begins a new trace.
    assert_eq!(get(&gateway, Some(&token), "/broken", Some("00-zz-01")).await, 200);
    let headers = upstream.seen().pop().unwrap().headers;
    assert!(headers["traceparent"].to_str().unwrap().ends_with("-00") && !headers.contains_key("tracestate"));
    assert_eq!(get(&gateway, Some(&token), "/sampled", Some(&format!("{PARENT}-01"))).await, 200);
    received.trace_of("/sampled").await;
    let paths: Vec<_> =
        received.spans().iter().filter_map(|span| text(&span.attributes, "url.path").map(str::to_owned)).collect();
    assert_eq!(paths, ["/sampled"]);
}

#[tokio::test]
async fn without_a_collector_requests_pass_and_spans_are_counted_as_failed() {
    let upstream = Upstream::start().await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let site = site(&[upstream.address], dead, "timeout: 200ms");
    let (token, gateway) = (site.token(&[]), site.serve());
    assert_eq!(get(&gateway, Some(&token), "/echo", None).await, 200);
    eventually("the spans to fail", async || (counted(&gateway, "failed").await >= 4).then_some(())).await;
    let is_it = |line: &serde_json::Value| {
        line["level"] == "WARN" && line["message"].as_str().is_some_and(|text| text.contains("telemetry.otlp"))
    };
    assert_eq!(gateway.log().into_iter().filter(is_it).count(), 1);
}

#[tokio::test]
async fn the_last_spans_are_sent_before_the_process_ends() {
    let (upstream, (received, collector)) = (Upstream::start().await, Received::grpc().await);
    let site = site(&[upstream.address], collector, "sample: 100%");
    let (token, gateway) = (site.token(&[]), site.serve());
    assert_eq!(get(&gateway, Some(&token), "/last", None).await, 200);
    gateway.signal(Signal::TERM);
    received.trace_of("/last").await;
}

#[tokio::test]
async fn without_the_setting_a_traceparent_passes_untouched() {
    let upstream = Upstream::start().await;
    let site = Site::in_memory(upstream.address, "  - { path: \"/{*rest}\", upstream: up }");
    let (token, gateway) = (site.token(&[]), site.serve());
    let parent = format!("{PARENT}-01");
    assert_eq!(get(&gateway, Some(&token), "/echo", Some(&parent)).await, 200);
    assert_eq!(get(&gateway, Some(&token), "/echo", None).await, 200);
    let seen = upstream.seen();
    assert_eq!(seen[0].headers["traceparent"], *parent);
    assert!(!seen[1].headers.contains_key("traceparent"));
}
