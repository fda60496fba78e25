//! What each step of a request costs by itself: finding a route, making headers right, telling who asks, refusing, logging.
//!
//! `cargo bench --bench steps` runs all; `-- route`, for example, the part of that name. The limiter's own is `decision.rs`.

use std::hint::black_box;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use callgate::auth::{Authenticator, Failures, FileStore, Refusal};
use callgate::config::{self, Config, Route};
use callgate::forward::{ForwardContext, ForwardedClient, onto_client, onto_upstream};
use callgate::response::{self, Rejection};
use callgate::route::{self, RouteTable};
use callgate::telemetry::{AccessRecord, WindowUse, push_json_line};
use callgate::tokens::{ActionContext, Actor, Draft, NewToken, Plans, Registry};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};

const REQUEST: HeaderValue = HeaderValue::from_static("0192f0c4-7d5e-7a10-9c52-2f3b8f6f4f01");

/// Routes with these paths, and what else they say.
fn configured(routes: &[(String, &str)]) -> Vec<Arc<Route>> {
    let routes = routes
        .iter()
        .map(|(path, more)| format!("  - {{ path: {path:?}, permission: \"calls:read\", upstream: api{more} }}\n"));
    let text = "tls: { certificates: [{ cert: c.pem, key: k.pem }] }\ntokens: { file: tokens.yaml }\n\
                upstreams: { api: { endpoints: [\"http://127.0.0.1:3000\"] } }\nroutes:\n";
    let text = text.to_owned() + &routes.collect::<String>();
    config::parse(Path::new("bench.yaml"), &text, &|_| None).expect("a good configuration").config.routes
}

fn routes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for count in [10, 1_000] {
        let mut routes = vec![("/api/v1/{*rest}".to_owned(), "")];
        for number in 0..count / 2 {
            routes.push((format!("/api/v1/service{number}/calls"), ", methods: GET"));
            routes.push((format!("/api/v1/service{number}/calls/{{id}}/stream"), ""));
        }
        let headers = HeaderMap::new();
        let table = RouteTable::new(&configured(&routes)).expect("routes that don't clash");
        let number = count / 4;
        for (name, path) in [
            ("fixed text", format!("/api/v1/service{number}/calls")),
            ("parameter", format!("/api/v1/service{number}/calls/0192f0c4-7d5e/stream")),
            ("catch-all", "/api/v1/recordings/0192f0c4-7d5e".to_owned()),
        ] {
            group.bench_function(format!("find, {count} routes, {name}"), |bench| {
                bench.iter(|| black_box(table.of_host("api.test").find(black_box(&path), &Method::GET, &headers)));
            });
        }
    }
    group.bench_function("judge, plain path", |bench| {
        bench.iter(|| route::judge(black_box("/api/v1/calls/0192f0c4-7d5e-7a10/stream")));
    });
    group.bench_function("judge, path with escapes", |bench| {
        bench.iter(|| route::judge(black_box("/api/v1/contacts/%4Daria%20L%C3%B3pez/calls")));
    });
    group.finish();
}

/// What a browser's script sends, or a plain client.
fn request_headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

fn headers(criterion: &mut Criterion) {
    let plain = request_headers(&[
        ("host", "api.example.com"),
        ("user-agent", "bench"),
        ("accept", "*/*"),
        ("authorization", "Bearer kal_live_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKL"),
    ]);
    let mut browser = plain.clone();
    browser.extend(request_headers(&[
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("accept-language", "de-DE,de;q=0.9,en;q=0.8"),
        ("cache-control", "no-cache"),
        ("connection", "keep-alive"),
        ("content-type", "application/json"),
        ("origin", "https://app.example.com"),
        ("referer", "https://app.example.com/calls"),
        ("sec-fetch-dest", "empty"),
        ("sec-fetch-mode", "cors"),
        ("sec-fetch-site", "same-site"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ]));
    let answer = request_headers(&[
        ("content-type", "application/json"),
        ("content-length", "205"),
        ("date", "Thu, 01 Jan 2026 12:00:00 GMT"),
        ("connection", "keep-alive"),
    ]);
    let names = callgate::auth::IDENTITY_HEADERS;
    let values = ["0123456789ab", "acme", "calls:read calls:write", "standard"].map(HeaderValue::from_static);
    let identity: Vec<_> = names.into_iter().zip(values).collect();
    let route = configured(&[("/api/v1/{*rest}".to_owned(), "")]).remove(0);
    let onward = ForwardContext {
        route: &route,
        upstream: 0,
        client: &ForwardedClient::new("192.0.2.17:40000".parse().expect("an address")),
        authority: "api.example.com",
        request_id: &REQUEST,
        identity: &identity,
        trusted_proxies: &[],
        interim: None,
        attempts: std::sync::atomic::AtomicU32::new(0),
        trace: None,
        hold: &|| Box::new(()),
        target: None,
    };
    let mut group = criterion.benchmark_group("headers");
    for (name, headers) in [("plain client", &plain), ("browser", &browser)] {
        group.bench_function(format!("onto the upstream, {name}"), |bench| {
            let onto = |headers: &mut HeaderMap| onto_upstream(headers, Version::HTTP_11, &onward, false);
            bench.iter_batched_ref(|| headers.clone(), onto, BatchSize::SmallInput);
        });
    }
    group.bench_function("onto the client", |bench| {
        bench.iter_batched_ref(|| answer.clone(), |headers| onto_client(headers, false, false), BatchSize::SmallInput);
    });
    group.bench_function("request id", |bench| {
        bench.iter_batched_ref(
            || answer.clone(),
            |headers| response::stamp_request_id(headers, &REQUEST),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// A small configuration with the memory store, its files in `folder`.
fn configuration(folder: &Path) -> Config {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(folder.join("cert.pem"), pair.cert.pem()).expect("a written file");
    std::fs::write(folder.join("key.pem"), pair.signing_key.serialize_pem()).expect("a written file");
    let text = "tls: { certificates: [{ cert: cert.pem, key: key.pem }] }\ntokens: { file: tokens.yaml }\n\
                routes: [{ path: /calls, upstream: calls }]\nupstreams: { calls: { endpoints: [\"http://127.0.0.1:1\"] } }\n";
    let file = folder.join("callgate.yaml");
    std::fs::write(&file, text).expect("a written file");
    config::load(&file).expect("a good configuration").config
}

fn authentication(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = configuration(folder.path());
    let path = folder.path().join("tokens.yaml");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let registry = Registry::with_file(&config, &path);
    let now = SystemTime::now();
    let token = NewToken::generate(&config.tokens.prefix).expect("randomness");
    let draft = Draft {
        name: "bench".into(),
        account: "acme".into(),
        permissions: vec!["calls:read".into()],
        ..Draft::default()
    };
    let record = draft.into_record(&Plans::new(&config), token.id, token.hash, now).expect("a good record");
    let by = ActionContext { actor: Actor::person("bench", "here"), now };
    runtime.block_on(registry.create(record, &by)).expect("a written record");
    let plans = Arc::new(Plans::new(&config));
    let file = Arc::new(FileStore::open(&path, plans.clone()).expect("a readable file"));
    let failures = Arc::new(Failures::new(&config.tokens.failures));
    let authenticator = Authenticator::with_file(Arc::new(config.clone()), plans, file, failures);
    let bearer = |text: &str| {
        let value = HeaderValue::try_from(format!("Bearer {text}")).expect("a header value");
        HeaderMap::from_iter([(header::AUTHORIZATION, value)])
    };
    let broken = "kal_live_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKL";
    let mut group = criterion.benchmark_group("auth");
    for (name, headers, good) in [
        ("a good token", bearer(token.secret.expose()), true),
        ("a malformed token", bearer(broken), false),
        ("no token", HeaderMap::new(), false),
    ] {
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let found =
                    runtime.block_on(authenticator.authenticate(black_box(&headers), [127, 0, 0, 1].into(), now));
                assert_eq!(found.is_ok(), good);
            });
        });
    }
    group.finish();
}

fn refusals(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rejection");
    let limited =
        || Rejection::RateLimited { limit: "minute".into(), count: 60, cost: 1, window_s: 60, retry_after_s: 17 };
    group.bench_function("429", |bench| bench.iter(|| limited().into_response("api", &REQUEST, false)));
    group.bench_function("401", |bench| {
        bench.iter(|| Rejection::Unauthenticated(Refusal::Missing).into_response("api", &REQUEST, false));
    });
    group.bench_function("404", |bench| bench.iter(|| Rejection::NotFound.into_response("api", &REQUEST, false)));
    group.finish();
}

fn access_line(criterion: &mut Criterion) {
    let window = |name, used, limit| WindowUse { name, used, limit };
    let windows = [window("minute", 17, 60), window("hour", 230, 1_000)];
    let record = AccessRecord {
        started: Instant::now(),
        received: SystemTime::now(),
        client: IpAddr::from([192, 0, 2, 17]),
        method: Method::GET,
        uri: "/api/v1/calls/0192f0c4-7d5e?limit=20".parse().expect("a target"),
        version: Version::HTTP_2,
        host: "api.example.com".into(),
        user_agent: Some(HeaderValue::from_static("curl/8.5.0")),
        trace_id: Some(1),
        request_id: REQUEST.clone(),
        route: Some("GET /api/v1/calls/{id}".into()),
        token: Some(("0123456789ab".into(), "the dashboard".into())),
        account: Some("acme".into()),
        status: StatusCode::OK,
        rejection: None,
        reason: None,
        error: None,
        upstream: Some("api".into()),
        attempts: 1,
        endpoint: Some("http://10.0.0.11:3000".into()),
        decided_by: Some("redis"),
        shadow_denied: false,
        phases: [3, 180, 900].map(|us| Some(Duration::from_micros(us))),
        bytes_out: 205,
        bytes_in: 0,
        messages: None,
        cut: false,
        ended_by: None,
    };
    let mut line = String::new();
    criterion.bench_function("access line, JSON", |bench| {
        bench.iter(|| {
            line.clear();
            push_json_line(&mut line, black_box(&record), &windows, Duration::from_millis(7), 1_024);
        });
    });
}

criterion_group!(steps, routes, headers, authentication, refusals, access_line);
criterion_main!(steps);
