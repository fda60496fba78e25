//! HTTP/2 that is negotiated over TLS, and nghttpd as a foreign implementation.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use http::Version;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::{site, stage};
use crate::support::client::{get, http1, http2, raw};
use crate::support::eventually_blocking;
use crate::support::gateway::{Gateway, Token};
use crate::support::upstream::{Manner, Upstream};

/// A certificate for `localhost`, as PEM, and a server that shows it and knows these protocols.
fn tls(protocols: &[&str]) -> (String, TlsAcceptor) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.signing_key.serialize_der()));
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let mut config = config.with_single_cert(vec![pair.cert.der().clone()], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    (pair.cert.pem(), TlsAcceptor::from(Arc::new(config)))
}

/// A gateway before an upstream that offers these protocols over TLS.
async fn tls_stage(protocols: &[&str], protocol: &str) -> (Upstream, Gateway, Token) {
    let (pem, acceptor) = tls(protocols);
    let upstream = Upstream::with(Manner { http2: Some(100), tls: Some(acceptor) }).await;
    let endpoint = format!("https://localhost:{}", upstream.address.port());
    let site = site(&[endpoint], &format!(", protocol: {protocol}, ca: up.pem"), "");
    std::fs::write(site.path("up.pem"), pem).unwrap();
    let token = site.token(&[]);
    (upstream, site.serve(), token)
}

#[tokio::test]
async fn the_protocol_is_negotiated() {
    for (offered, protocol, version) in [
        (&["h2", "http/1.1"][..], "auto", Version::HTTP_2),
        // The server chooses.
        (&["http/1.1", "h2"], "auto", Version::HTTP_11),
        (&["http/1.1"], "auto", Version::HTTP_11),
        (&[], "auto", Version::HTTP_11),
        (&["h2", "http/1.1"], "http1", Version::HTTP_11),
        (&[], "http1", Version::HTTP_11),
        (&["h2"], "http2", Version::HTTP_2),
    ] {
        let (upstream, gateway, token) = tls_stage(offered, protocol).await;
        for _ in 0..3 {
            assert_eq!(get(&http2(&gateway), &gateway, "/x", &token).await.status(), 200, "{offered:?} {protocol}");
        }
        let seen = upstream.seen();
        assert!(seen.iter().all(|seen| seen.version == version), "{offered:?} {protocol}: {seen:?}");
        assert_eq!(upstream.connections(), 1, "{offered:?} {protocol}");
        if version == Version::HTTP_2 {
            assert!(seen[0].target.starts_with("https://localhost"), "{seen:?}");
        }
    }
    for offered in [&[][..], &["http/1.1"]] {
        let (upstream, gateway, token) = tls_stage(offered, "http2").await;
        assert_eq!(get(&http2(&gateway), &gateway, "/x", &token).await.status(), 502, "{offered:?}");
        assert!(upstream.seen().is_empty());
    }
}

#[tokio::test]
async fn a_websocket_gets_an_http1_connection_even_to_an_http2_upstream() {
    let (pem, acceptor) = tls(&["h2", "http/1.1"]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let echo = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(acceptor.accept(socket).await.unwrap()).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            socket.send(message).await.unwrap();
        }
    });
    let site = site(&[endpoint], ", protocol: auto, ca: up.pem", "");
    std::fs::write(site.path("up.pem"), pem).unwrap();
    let token = site.token(&[]);
    let gateway = site.serve();
    let mut request = "wss://localhost/call".into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {}", token.secret).parse().unwrap());
    let stream = raw(&gateway, "http/1.1").await;
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    drop(socket);
    echo.abort();
}

#[tokio::test]
async fn a_websocket_does_not_decide_the_protocol_of_other_requests() {
    let (upstream, gateway, token) = tls_stage(&["h2", "http/1.1"], "auto").await;
    let asks = http1(&gateway).get(gateway.url("/echo")).bearer_auth(&token.secret);
    let asks = asks.header("connection", "upgrade").header("upgrade", "websocket");
    assert_eq!(asks.send().await.unwrap().status(), 200);
    let client = http2(&gateway);
    let answers = futures_util::future::join_all((0..20).map(|_| get(&client, &gateway, "/slow/500", &token))).await;
    assert!(answers.iter().all(|answer| answer.status() == 200));
    // The one of HTTP/1.1, and one for all others.
    assert_eq!(upstream.connections(), 2);
}

struct Nghttpd(Child);

impl Drop for Nghttpd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn requests_pass_to_nghttpd() {
    let folder = tempfile::TempDir::new().unwrap();
    let content: String = (0..200_000).map(|number| format!("{number:09}\n")).collect();
    std::fs::write(folder.path().join("speech.txt"), &content).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new("nghttpd");
    command.args(["--no-tls", "--address=127.0.0.1", "--max-concurrent-streams=8", "--echo-upload", "--htdocs"]);
    command.arg(folder.path()).arg(port.to_string()).stdout(Stdio::null());
    let _server = Nghttpd(command.spawn().expect("nghttpd is installed (tests/run does that)"));
    eventually_blocking("nghttpd to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    let (gateway, token) = stage(&[format!("http://127.0.0.1:{port}")], ", protocol: http2", "");
    for client in [http1(&gateway), http2(&gateway)] {
        let asked = (0..30).map(async |_| get(&client, &gateway, "/speech.txt", &token).await.text().await.unwrap());
        assert!(futures_util::future::join_all(asked).await.iter().all(|answer| *answer == content));
        let upload = client.post(gateway.url("/echo")).bearer_auth(&token.secret).body(content.clone());
        assert_eq!(upload.send().await.unwrap().text().await.unwrap(), content);
        assert_eq!(get(&client, &gateway, "/nothing", &token).await.status(), 404);
    }
}
