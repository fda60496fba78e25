//! Behind load balancers on TCP that speak the PROXY protocol: raw bytes, and haproxy.

mod ended_tls;

use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{builder, connector};
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::upstream::Upstream;
use crate::support::{WAIT_TIMEOUT, eventually, eventually_blocking};

/// A gateway with a plain listener, too, before an upstream.
async fn stage(listen: &str, rest: &str) -> (Upstream, Gateway, Token) {
    let upstream = Upstream::start().await;
    let site = Site::with_listen(
        &format!(", http: \"127.0.0.1:0\"{listen}"),
        &format!(
            "store: memory\ntokens: {{ file: tokens.yaml{rest} }}\nroutes: [{{ path: \"/{{*rest}}\", upstream: up }}]\n\
             upstreams: {{ up: {{ endpoints: [\"http://{}\"] }} }}",
            upstream.address
        ),
    );
    let token = site.token(&[]);
    (upstream, site.serve(), token)
}

/// Version 2: a command, a family, and what follows.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
}

/// From 192.0.2.7, port 5000, with something that a proxy added.
fn binary_from_client() -> Vec<u8> {
    let addresses = [192, 0, 2, 7, 10, 0, 0, 1, 0x13, 0x88, 0x01, 0xbb];
    // A checksum, which is not looked at, and an authority.
    let more = [&[3, 0, 4, 1, 2, 3, 4][..], &[2, 0, 9], b"localhost"].concat();
    binary(0x21, 0x11, &[&addresses[..], &more].concat())
}

const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 443\r\n";

/// A request behind a header that is sent in pieces of this size; the answer, which may be none.
async fn ask(gateway: &Gateway, header: &[u8], piece: usize, path: &str, token: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(gateway.https).await?;
    socket.set_nodelay(true)?;
    for piece in header.chunks(piece) {
        socket.write_all(piece).await?;
        tokio::task::yield_now().await;
    }
    let name = ServerName::try_from("localhost").unwrap();
    let connecting = connector(&gateway.site.path("cert.pem"), "http/1.1").connect(name, socket);
    let mut stream = tokio::time::timeout(WAIT_TIMEOUT, connecting).await.expect("a handshake or its end")?;
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    tokio::time::timeout(WAIT_TIMEOUT, stream.read_to_string(&mut answer)).await.expect("an answer")?;
    Ok(answer)
}

async fn failures(gateway: &Gateway, listener: &str) -> Option<f64> {
    gateway.metric(&format!("callgate_proxy_protocol_failures_total{{listener=\"{listener}\"}}")).await
}

const FROM_HERE: &str = ", proxy_protocol: { from: [127.0.0.1] }";

#[tokio::test]
async fn the_client_address_is_that_of_the_proxy_header() {
    let (upstream, gateway, token) = stage(FROM_HERE, "").await;
    let six = b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 443\r\n";
    let cases: [(&str, Vec<u8>, &str); 7] = [
        ("line", LINE.to_vec(), "192.0.2.7"),
        ("six", six.to_vec(), "2001:db8::7"),
        ("binary", binary_from_client(), "192.0.2.7"),
        // For itself.
        ("local", binary(0x20, 0, &[]), "127.0.0.1"),
        ("unknown", b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        ("unspecified", binary(0x21, 0, &[1, 2, 3]), "127.0.0.1"),
        ("unix", binary(0x21, 0x31, &[7; 216]), "127.0.0.1"),
    ];
    for (name, header, client) in cases {
        for (piece, path) in [(1_000, format!("/{name}")), (1, format!("/{name}/cut"))] {
            let answer = ask(&gateway, &header, piece, &path, &token.secret).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
            assert_eq!(gateway.access(&path, 1).await[0]["client"], client, "{path}");
            let seen = upstream.seen().pop().unwrap();
            assert_eq!(
                (seen.target.as_str(), &seen.headers["x-forwarded-for"]),
                (path.as_str(), &client.parse().unwrap())
            );
        }
    }
    assert_eq!(failures(&gateway, "https").await, Some(0.0));
}

#[tokio::test]
async fn a_proxy_that_sends_no_header_is_disconnected() {
    let (upstream, gateway, token) = stage(&format!("{FROM_HERE}, handshake_timeout: 500ms"), "").await;
    let cases: [&[u8]; 6] = [
        b"",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 443\n",
        b"PROXY TCP4 localhost 10.0.0.1 5000 443\r\n",
        &binary(0x21, 0x11, &[1, 2, 3]),
        &binary(0x2f, 0x11, &[7; 12]),
        // Not one after the other.
        &[LINE, LINE].concat(),
    ];
    for header in cases {
        assert!(ask(&gateway, header, 1_000, "/x", &token.secret).await.is_err(), "{}", header.escape_ascii());
    }
    // The last one is TLS's to refuse.
    assert_eq!(failures(&gateway, "https").await, Some(5.0));
    // Slowly, and not at all.
    for header in [&b"PROXY TCP4 192.0"[..], b"\r\n\r\n\0\r\nQUIT\n\x21", b"P"] {
        let mut socket = TcpStream::connect(gateway.https).await.unwrap();
        socket.write_all(header).await.unwrap();
        let closed = tokio::time::timeout(WAIT_TIMEOUT, socket.read(&mut [0; 100])).await.expect("a close in time");
        assert!(matches!(closed, Ok(0) | Err(_)));
    }
    assert_eq!(failures(&gateway, "https").await, Some(8.0));
    // A health check that only connects is no failure.
    drop(TcpStream::connect(gateway.https).await.unwrap());
    eventually("the connections to be over", async || {
        gateway.metric("callgate_connections_open{listener=\"https\"}").await.filter(|open| *open == 0.0)
    })
    .await;
    assert_eq!(failures(&gateway, "https").await, Some(8.0));
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn only_configured_proxies_may_send_the_header() {
    let (_upstream, gateway, token) = stage(", proxy_protocol: { from: [10.0.0.0/8] }", "").await;
    let answer = ask(&gateway, b"", 1, "/direct", &token.secret).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(gateway.access("/direct", 1).await[0]["client"], "127.0.0.1");
    for header in [LINE.to_vec(), binary_from_client()] {
        assert!(ask(&gateway, &header, 1_000, "/x", &token.secret).await.is_err());
    }
    assert_eq!(failures(&gateway, "https").await, Some(0.0), "they are no proxies");
}

#[tokio::test]
async fn the_plain_listener_reads_the_header_too() {
    let (_upstream, gateway, _) = stage(FROM_HERE, "").await;
    let mut socket = TcpStream::connect(gateway.http.unwrap()).await.unwrap();
    socket.write_all(&[LINE, b"GET /plain HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"].concat()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert_eq!(gateway.access("/plain", 1).await[0]["client"], "192.0.2.7");
    let mut socket = TcpStream::connect(gateway.http.unwrap()).await.unwrap();
    socket.write_all(b"GET /plain HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(matches!(socket.read(&mut [0; 100]).await, Ok(0) | Err(_)));
    assert_eq!(failures(&gateway, "http").await, Some(1.0));
}

#[tokio::test]
async fn failed_authentications_count_for_the_client_address() {
    let (_upstream, gateway, token) = stage(FROM_HERE, ", failures: { limit: 2/1h }").await;
    let from = |last: u8| format!("PROXY TCP4 192.0.2.{last} 10.0.0.1 5000 443\r\n").into_bytes();
    for expected in ["401", "401", "429"] {
        let answer = ask(&gateway, &from(1), 1_000, "/x", "kal_live_wrong").await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{answer}");
    }
    for (secret, expected) in [("kal_live_wrong", "401"), (&token.secret, "200")] {
        let answer = ask(&gateway, &from(2), 1_000, "/x", secret).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{answer}");
    }
}

/// haproxy in front of a gateway; dropped, it ends.
struct Haproxy {
    child: Child,
    ports: [u16; 2],
    _folder: TempDir,
}

impl Haproxy {
    /// `sections`: behind the defaults, on these two ports.
    fn start(sections: impl Fn([u16; 2]) -> String) -> Self {
        for _ in 0..5 {
            let folder = TempDir::new().unwrap();
            let sockets = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
            let ports = sockets.each_ref().map(|socket| socket.local_addr().unwrap().port());
            drop(sockets);
            let config = format!(
                "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n{}",
                sections(ports)
            );
            std::fs::write(folder.path().join("haproxy.cfg"), config).unwrap();
            let mut command = Command::new("haproxy");
            command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap()));
            command.arg("-db").arg("-f").arg(folder.path().join("haproxy.cfg"));
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().expect("haproxy is installed (tests/run does that)");
            // Another process may have taken a port first.
            let listens = eventually_blocking("haproxy to listen or to end", || {
                let ended = child.try_wait().unwrap().is_some();
                let listens =
                    !ended && ports.iter().all(|port| std::net::TcpStream::connect(("127.0.0.1", *port)).is_ok());
                (ended || listens).then_some(listens)
            });
            if listens {
                return Self { child, ports, _folder: folder };
            }
        }
        panic!("haproxy did not start");
    }

    /// Passes connections on with headers of version 1, and of version 2.
    fn before(gateway: &Gateway) -> Self {
        let check = "check check-ssl verify none check-send-proxy inter 200ms";
        let gate = gateway.https;
        Self::start(|[one, two]| {
            format!(
                "listen one\n bind 127.0.0.1:{one}\n server gate {gate} send-proxy\n\
                 listen two\n bind 127.0.0.1:{two}\n option httpchk GET /check\n http-check expect status 401\n \
                 server gate {gate} send-proxy-v2 proxy-v2-options crc32c,unique-id {check}\n"
            )
        })
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn haproxy_passes_connections_on() {
    let (upstream, gateway, token) = stage(FROM_HERE, "").await;
    let haproxy = Haproxy::before(&gateway);
    let here: IpAddr = [127, 0, 0, 77].into();
    for (version, port) in haproxy.ports.into_iter().enumerate() {
        let local: SocketAddr = ([127, 0, 0, 1], port).into();
        for http1_only in [true, false] {
            let client = builder(&gateway).local_address(here).resolve("localhost", local);
            let client = if http1_only { client.http1_only() } else { client }.build().unwrap();
            let path = format!("/version/{version}/{http1_only}");
            let url = format!("https://localhost:{port}{path}");
            let client = Arc::new(client);
            let answers = futures_util::future::join_all((0..10).map(|_| {
                let request = client.post(&url).bearer_auth(&token.secret).body(vec![7; 100_000]);
                async move { request.send().await.unwrap().json::<Value>().await.unwrap() }
            }));
            assert!(answers.await.iter().all(|reported| reported["body_length"] == 100_000));
            for line in gateway.access(&path, 10).await {
                assert_eq!(line["client"], "127.0.0.77", "{line}");
            }
        }
    }
    assert!(upstream.seen().iter().all(|seen| seen.headers["x-forwarded-for"] == "127.0.0.77"));
    // Its health checks speak for themselves (LOCAL).
    let checks = gateway.access("/check", 3).await;
    assert!(checks.iter().all(|line| line["client"] == "127.0.0.1" && line["status"] == 401), "{checks:?}");
    assert_eq!(failures(&gateway, "https").await, Some(0.0));
}
