//! Reloads under load: nothing fails, nothing ends, and each answer is that of one configuration.
//!
//! `CALLGATE_SOAK_MINUTES=N` makes a hundred reloads a minute for so long; otherwise there are a few.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::{reload, write};
use crate::support::calls::{call, switchboard};
use crate::support::client::{ask_until, builder, header, http1, http2};
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::upstream::Upstream;

const RELOADS: u32 = 24;
/// Calls that are open; so many with CALLGATE_SOAK_MINUTES.
const CALLS: usize = 40;
const SOAK_CALLS: usize = 500;
const CLIENTS: usize = 3;
/// Of the token whose limit does not change.
const TIGHT_LIMIT: u32 = 40;

/// Three marks of a generation have to agree in each answer: a header that the service gets, one of the answer, and the plan's limit.
fn configuration(generation: u32, services: &[SocketAddr; 2], calls: SocketAddr) -> String {
    let (limit, service) = (100_000 + generation, services[generation as usize % 2]);
    let odd = if generation.is_multiple_of(2) { "" } else { "\n  - { path: /odd, upstream: up, auth: none }" };
    format!(
        "listen: {{ https: \"127.0.0.1:0\", admin: \"127.0.0.1:0\", max_connections: 2000, max_connections_per_client: 2000 }}\n\
         tls: {{ certificates: [{{ cert: cert.pem, key: key.pem }}] }}\nruntime: {{ workers: 2 }}\nadmin: {{ anonymous: write }}\n\
         store: memory\ntokens: {{ file: tokens.yaml }}\n\
         plans:\n  standard: {{ limits: {{ minute: {limit}/1m }} }}\n  tight: {{ limits: {{ hour: {TIGHT_LIMIT}/1h }} }}\n\
         default_plan: standard\nroutes:\n  \
         - {{ path: /call, upstream: calls }}{odd}\n  - path: \"/{{*rest}}\"\n    upstream: up\n    \
         request_headers: {{ set: {{ x-generation: \"{generation}\" }} }}\n    \
         response_headers: {{ set: {{ x-generation: \"{generation}\" }} }}\n\
         upstreams:\n  up: {{ endpoints: [\"http://{service}\"] }}\n  calls: {{ endpoints: [\"http://{calls}\"], max_connections: 1000 }}\n"
    )
}

/// Requests until `over`; returns how many there were.
async fn ask_on(client: reqwest::Client, gateway: Arc<Gateway>, token: Token, over: Arc<AtomicBool>) -> u32 {
    let mut asked = 0;
    while !over.load(Ordering::Relaxed) {
        let is_upload = asked % 4 == 3;
        let request = match is_upload {
            true => client.post(gateway.url("/echo")).body(vec![b'x'; 100_000]),
            false => client.get(gateway.url("/echo")),
        };
        let response = request.bearer_auth(&token.secret).send().await.unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(response.status(), 200);
        let generation = header(&response, "x-generation").to_owned();
        let limit: u32 = header(&response, "x-ratelimit-limit").parse().unwrap();
        assert_eq!((limit - 100_000).to_string(), generation);
        let seen: Value = response.json().await.unwrap();
        let headers = seen["headers"].as_array().unwrap();
        assert!(headers.iter().any(|header| header[0] == "x-generation" && header[1] == *generation), "{headers:?}");
        assert_eq!(seen["body_length"], if is_upload { 100_000 } else { 0 });
        asked += 1;
    }
    asked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices() {
    let services = [Upstream::start().await, Upstream::start().await];
    let (addresses, calls) = (services.each_ref().map(|service| service.address), switchboard().await);
    let site = Site::new("");
    write(&site.config(), &configuration(0, &addresses, calls));
    let (token, tight) = (site.token(&[]), site.token_with(&[], &["--plan", "tight"]));
    let gateway = Arc::new(site.serve());
    let soak = std::env::var("CALLGATE_SOAK_MINUTES").ok().map(|minutes| minutes.parse::<u32>().unwrap());
    let held = if soak.is_some() { SOAK_CALLS } else { CALLS };
    let mut open = Vec::new();
    for _ in 0..held {
        open.push(call(&gateway, &token, "/call").await.unwrap());
    }
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        for client in [http1(&gateway), http2(&gateway)] {
            clients.spawn(ask_on(client, gateway.clone(), token.clone(), over.clone()));
        }
    }
    // Streams of events go on, whatever becomes of their route.
    let mut streams = JoinSet::new();
    for client in [builder(&gateway).http1_only(), builder(&gateway)] {
        // The usual one is for a whole answer.
        let client = client.timeout(Duration::from_secs(24 * 3_600)).build().unwrap();
        let request = client.get(gateway.url("/feed")).bearer_auth(&token.secret);
        let (mut stream, over) = (request.send().await.unwrap(), over.clone());
        streams.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                assert!(stream.chunk().await.unwrap().is_some(), "a stream of events has ended");
            }
        });
    }
    // One token's limit is exact over all configurations.
    let mut limited = JoinSet::new();
    for client in [http1(&gateway), http2(&gateway)] {
        let pause = Duration::from_millis(50);
        limited.spawn(ask_until(client, gateway.clone(), tight.clone(), over.clone(), pause));
    }

    let reloads = soak.map_or(RELOADS, |minutes| 100 * minutes);
    let (mut warm, mut slowest) = (0, Duration::ZERO);
    for number in 1..=reloads {
        let generation = number % 500;
        let good = configuration(generation, &addresses, calls);
        let is_broken = number % 5 == 0;
        write(&site.config(), &if is_broken { good.replace("upstream: calls", "upstream: nowhere") } else { good });
        let began = Instant::now();
        let (status, answer) = reload(&gateway).await;
        slowest = slowest.max(began.elapsed());
        assert_eq!(status, if is_broken { 422 } else { 200 }, "{answer}");
        if number == reloads / 2 {
            warm = gateway.resident();
        }
        // Some of these reloads come by themselves, when the file is seen to have changed.
        tokio::time::sleep(Duration::from_millis(if soak.is_some() { 550 } else { 200 })).await;
    }
    over.store(true, Ordering::Relaxed);
    let asked_on: Vec<u32> = clients.join_all().await;
    streams.join_all().await;
    assert!(asked_on.iter().all(|count| *count > reloads / 4), "too few requests to say anything: {asked_on:?}");
    let (admitted, asked): (Vec<u32>, Vec<u32>) = limited.join_all().await.into_iter().unzip();
    assert_eq!(admitted.iter().sum::<u32>(), asked.iter().sum::<u32>().min(TIGHT_LIMIT));
    // All calls are there, and take what is sent.
    assert_eq!(gateway.metric(r#"callgate_calls_open{route="/call"}"#).await, Some(held as f64));
    for call in &mut open {
        call.write_all(b"\x89\x80abcd").await.unwrap();
        let closed = tokio::time::timeout(Duration::from_millis(1), call.read_u8()).await;
        assert!(closed.is_err(), "a call has ended: {closed:?}");
    }
    // Both services were used, and what is gone is not reported.
    assert!(services.iter().all(|service| service.seen().iter().any(|seen| seen.target == "/echo")));
    let page = gateway.admin("/metrics").await.1;
    let endpoints: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("callgate_upstream_endpoint_up{endpoint=\"")?.split('"').next())
        .collect();
    assert_eq!(endpoints.len(), 2, "{endpoints:?}");
    let grown = gateway.resident().saturating_sub(warm);
    eprintln!(
        "{reloads} reloads, the slowest took {slowest:?}; {grown} bytes more than half-way; requests: {asked_on:?}"
    );
    assert!(grown < 24 << 20, "{grown} bytes more after {} more reloads", reloads / 2);
}

/// Certificates exchanged as Kubernetes does it, under handshakes: each gets one of the two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_handshake_gets_one_of_two_certificates() {
    use std::os::unix::fs::symlink;
    let upstream = Upstream::start().await;
    let site = super::site(upstream.address, "{ path: /a, upstream: up, auth: none }");
    let mut roots = rustls::RootCertStore::empty();
    for name in ["0", "1"] {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::create_dir(site.path(name)).unwrap();
        std::fs::write(site.path(name).join("cert.pem"), pair.cert.pem()).unwrap();
        std::fs::write(site.path(name).join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
        roots.add(pair.cert.der().clone()).unwrap();
    }
    symlink("0", site.path("data")).unwrap();
    for name in ["cert.pem", "key.pem"] {
        std::fs::remove_file(site.path(name)).unwrap();
        symlink(format!("data/{name}"), site.path(name)).unwrap();
    }
    let gateway = Arc::new(site.serve());
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let (connector, gateway, over) = (connector.clone(), gateway.clone(), over.clone());
        clients.spawn(async move {
            let mut shown = BTreeSet::new();
            while !over.load(Ordering::Relaxed) {
                let socket = tokio::net::TcpStream::connect(gateway.https).await.unwrap();
                let stream = connector.connect("localhost".try_into().unwrap(), socket).await.unwrap();
                shown.insert(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec());
            }
            shown
        });
    }
    for number in 1..=10 {
        symlink((number % 2).to_string(), site.path("next")).unwrap();
        std::fs::rename(site.path("next"), site.path("data")).unwrap();
        let (status, answer) = reload(&gateway).await;
        assert_eq!(status, 200, "{answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    over.store(true, Ordering::Relaxed);
    let shown: Vec<_> = clients.join_all().await;
    assert_eq!(shown.iter().flatten().collect::<BTreeSet<_>>().len(), 2);
}
