//! Behind load balancers that end TLS and speak HTTP in clear to the plain listener: raw bytes, haproxy and nginx.

use std::net::SocketAddr;

use reqwest::Client;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::Haproxy;
use crate::foreign::nginx_with;
use crate::support::calls::{read_head, switchboard};
use crate::support::client::{builder, connector, header};
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::upstream::Upstream;
use crate::support::{WAIT_TIMEOUT, eventually};

/// A gateway whose plain listener believes the proxies at 127.0.0.2, which is also where the balancers of these tests connect from.
async fn stage() -> (Upstream, Gateway, Token) {
    let (upstream, media) = (Upstream::start().await, switchboard().await);
    let http = "{ address: \"127.0.0.1:0\", https_from: [127.0.0.2] }";
    let site = Site::with_listen(
        "",
        &format!(
            "store: memory\ntokens: {{ file: tokens.yaml }}\ntrusted_proxies: [127.0.0.2]\nroutes:\n\
             \x20 - {{ path: /call, upstream: media }}\n  - {{ path: \"/{{*rest}}\", upstream: up }}\n\
             upstreams: {{ up: {{ endpoints: [\"http://{}\"] }}, media: {{ endpoints: [\"http://{media}\"] }} }}",
            upstream.address
        ),
    );
    site.replace("max_connections: 2000", &format!("max_connections: 2000, http: {http}"));
    let token = site.token(&[]);
    (upstream, site.serve(), token)
}

/// A connection to the plain listener from this address.
async fn connect(gateway: &Gateway, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(gateway.http.unwrap()).await.unwrap()
}

const BALANCER: [u8; 4] = [127, 0, 0, 2];

/// The answer to a request with these header lines from this address.
async fn ask(gateway: &Gateway, from: [u8; 4], path: &str, lines: &str) -> String {
    let mut socket = connect(gateway, from).await;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{lines}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(WAIT_TIMEOUT, socket.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    answer
}

#[tokio::test]
async fn only_named_proxies_say_that_a_request_came_over_https() {
    let (upstream, gateway, token) = stage().await;
    let credential = format!("authorization: Bearer {}\r\n", token.secret);
    for (name, from, lines, status) in [
        ("said", BALANCER, "x-forwarded-proto: https\r\n", "200"),
        ("standard", BALANCER, "forwarded: for=192.0.2.7;proto=https\r\n", "200"),
        ("unsaid", BALANCER, "", "403"),
        ("plain", BALANCER, "x-forwarded-proto: http\r\n", "403"),
        ("appended", BALANCER, "x-forwarded-proto: https, http\r\n", "403"),
        ("doubtful", BALANCER, "x-forwarded-proto: http\r\nforwarded: proto=https\r\n", "403"),
        ("liar", [127, 0, 0, 1], "x-forwarded-proto: https\r\n", "403"),
        ("neighbour", [127, 0, 0, 3], "forwarded: proto=https\r\n", "403"),
    ] {
        let answer = ask(&gateway, from, &format!("/{name}"), &format!("{credential}{lines}")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer}");
        assert_eq!(answer.contains("https_required"), status == "403", "{name}: {answer}");
        assert_eq!(answer.contains("x-ratelimit-limit"), status == "200", "{name}: {answer}");
    }
    // All that a request over HTTPS is subject to.
    let answer = ask(&gateway, BALANCER, "/no-token", "x-forwarded-proto: https\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.headers["x-forwarded-proto"] == "https"), "{seen:?}");
}

#[tokio::test]
async fn the_client_is_who_the_balancer_names_and_never_whom_the_client_names() {
    let (_upstream, gateway, token) = stage().await;
    let lines = format!(
        "authorization: Bearer {}\r\nx-forwarded-proto: https\r\nx-forwarded-for: 6.6.6.6, 192.0.2.9\r\n",
        token.secret
    );
    ask(&gateway, BALANCER, "/named", &lines).await;
    assert_eq!(gateway.access("/named", 1).await[0]["client"], "192.0.2.9");
    ask(&gateway, [127, 0, 0, 1], "/lied", &lines).await;
    assert_eq!(gateway.access("/lied", 1).await[0]["client"], "127.0.0.1");
}

#[tokio::test]
async fn a_connection_begins_as_http2_or_as_http1_also_in_pieces() {
    let (_upstream, gateway, _token) = stage().await;
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for cut in [1, 3, 4, 20] {
        let mut socket = connect(&gateway, BALANCER).await;
        socket.set_nodelay(true).unwrap();
        socket.write_all(&PREFACE[..cut]).await.unwrap();
        tokio::task::yield_now().await;
        socket.write_all(&PREFACE[cut..]).await.unwrap();
        let mut frame = [0; 9];
        tokio::time::timeout(WAIT_TIMEOUT, socket.read_exact(&mut frame)).await.expect("a frame").unwrap();
        // SETTINGS
        assert_eq!(frame[3], 4, "{cut}: {frame:?}");
    }
    // Nobody else speaks it in clear, and other words may begin alike.
    let mut socket = connect(&gateway, [127, 0, 0, 1]).await;
    socket.write_all(PREFACE).await.unwrap();
    assert!(read_head(&mut socket).await.unwrap().starts_with("HTTP/1.1 400 "));
    let mut socket = connect(&gateway, BALANCER).await;
    socket.write_all(b"P").await.unwrap();
    tokio::task::yield_now().await;
    socket.write_all(b"UT /x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    assert!(read_head(&mut socket).await.unwrap().starts_with("HTTP/1.1 403 "));
}

/// A client of a balancer on this port.
fn client_of(gateway: &Gateway, port: u16) -> Client {
    let local: SocketAddr = ([127, 0, 0, 1], port).into();
    builder(gateway).resolve("localhost", local).build().unwrap()
}

#[tokio::test]
async fn haproxy_ends_tls_and_speaks_both_protocols() {
    let (upstream, gateway, token) = stage().await;
    let pem = ["cert.pem", "key.pem"].map(|name| std::fs::read_to_string(gateway.site.path(name)).unwrap()).concat();
    gateway.site.write_secret("both.pem", &pem);
    let (gate, pem) = (gateway.http.unwrap(), gateway.site.path("both.pem"));
    let haproxy = Haproxy::start(|[one, two]| {
        let common = "mode http\n option forwardfor\n http-request set-header X-Forwarded-Proto https if { ssl_fc }\n \
                      http-request set-header X-Forwarded-Proto http if ! { ssl_fc }\n source 127.0.0.2\n";
        let bind = |port| format!("bind 127.0.0.1:{port} ssl crt {} alpn h2,http/1.1", pem.display());
        format!(
            "listen one\n {}\n {common} server gate {gate}\n\
             listen two\n {}\n {common} server gate {gate} proto h2\n",
            bind(one),
            bind(two)
        )
    });
    for (port, protocol) in haproxy.ports.into_iter().zip(["http/1.1", "h2"]) {
        let client = client_of(&gateway, port);
        let path = format!("/{}", protocol.replace('/', "-"));
        for _ in 0..3 {
            let url = format!("https://localhost:{port}{path}");
            let answer = client.post(url).bearer_auth(&token.secret).body(vec![7; 100_000]).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            assert!(!header(&answer, "x-ratelimit-remaining").is_empty());
            assert_eq!(answer.json::<serde_json::Value>().await.unwrap()["body_length"], 100_000);
        }
        for line in gateway.access(&path, 3).await {
            assert_eq!((&line["client"], &line["protocol"]), (&"127.0.0.1".into(), &protocol.into()), "{line}");
        }
    }
    assert!(upstream.seen().iter().all(|seen| seen.headers["x-forwarded-proto"] == "https"));

    // A call through it.
    let socket = TcpStream::connect(("127.0.0.1", haproxy.ports[0])).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream =
        connector(&gateway.site.path("cert.pem"), "http/1.1").connect(name, socket).await.expect("a handshake");
    let handshake = format!(
        "GET /call HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        token.secret
    );
    stream.write_all(handshake.as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let open = r#"callgate_calls_open{route="/call"}"#;
    eventually("the call to be counted", async || (gateway.metric(open).await == Some(1.0)).then_some(())).await;
    drop(stream);
    eventually("the call to end", async || (gateway.metric(open).await == Some(0.0)).then_some(())).await;
}

#[tokio::test]
async fn nginx_ends_tls_and_what_came_in_clear_to_it_is_refused() {
    let (upstream, gateway, token) = stage().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let location = format!(
        "location / {{ proxy_pass http://{}; proxy_bind 127.0.0.2; proxy_http_version 1.1; proxy_set_header Host $host; \
         proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }}",
        gateway.http.unwrap()
    );
    let secure = format!(
        "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {}; ssl_certificate_key {}; {location} }}",
        gateway.site.path("cert.pem").display(),
        gateway.site.path("key.pem").display()
    );
    let (_nginx, _folder, plain) = nginx_with(&secure, &location);
    let client = client_of(&gateway, port);
    let url = format!("https://localhost:{port}/secure");
    assert_eq!(client.get(url).bearer_auth(&token.secret).send().await.unwrap().status(), 200);
    // What the client says of itself, nginx overwrites.
    let request = client.get(format!("http://{plain}/plain")).bearer_auth(&token.secret);
    let refused = request.header("x-forwarded-proto", "https").send().await.unwrap();
    assert_eq!(refused.status(), 403);
    assert_eq!(upstream.seen().len(), 1);
    assert_eq!(gateway.access("/secure", 1).await[0]["client"], "127.0.0.1");
}
