//! One client address can't take all connections, and slow uploads don't last.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::client::{connector, raw};
use crate::support::frames::{Frames, encode, field, kind, request};
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::upstream::Upstream;
use crate::support::{WAIT_TIMEOUT, eventually};

async fn stage(listen: &str, route: &str, rest: &str) -> (Upstream, Gateway, Token) {
    // Before anything else asks the admin listener.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let upstream = Upstream::start().await;
    let site = Site::with_listen(
        listen,
        &format!(
            "store: memory\ntokens: {{ file: tokens.yaml }}\nroutes: [{{ path: \"/{{*rest}}\", upstream: up{route} }}]\n\
             upstreams: {{ up: {{ endpoints: [\"http://{}\"] }} }}\n{rest}",
            upstream.address
        ),
    );
    site.replace("max_connections: 2000", "max_connections: 20");
    let token = site.token(&[]);
    (upstream, site.serve(), token)
}

async fn connect_from(client: &str, gateway: &Gateway) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(client.parse().unwrap(), 0)).unwrap();
    socket.connect(gateway.https).await.unwrap()
}

/// Asks over this socket; the answer, which may be none.
async fn ask(gateway: &Gateway, socket: TcpStream, token: &Token) -> std::io::Result<String> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector(&gateway.site.path("cert.pem"), "http/1.1").connect(name, socket).await?;
    let request = format!(
        "GET /x HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
        token.secret
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    tokio::time::timeout(WAIT_TIMEOUT, stream.read_to_string(&mut answer)).await.expect("an answer")?;
    Ok(answer)
}

async fn refused(gateway: &Gateway, count: f64) {
    let series = r#"callgate_client_connections_refused_total{listener="https"}"#;
    eventually(&format!("{count} refused connections"), async || {
        (gateway.metric(series).await == Some(count)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn idle_sockets_of_one_address_leave_room_for_others() {
    let (_upstream, gateway, token) = stage("", "", "").await;
    let idle = join_all((0..20).map(|_| connect_from("127.0.0.2", &gateway))).await;
    refused(&gateway, 10.0).await;
    let answer = ask(&gateway, connect_from("127.0.0.3", &gateway).await, &token).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    drop(idle);
    eventually("the first address to be served again", async || {
        let answer = ask(&gateway, connect_from("127.0.0.2", &gateway).await, &token).await.ok()?;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        Some(())
    })
    .await;
}

#[tokio::test]
async fn one_warning_tells_that_all_connections_are_taken() {
    let (_upstream, gateway, _) = stage(", max_connections_per_client: 20", "", "").await;
    let lines = |text: &str| gateway.output().matches(text).count();
    for round in 1..=2_u32 {
        let mut held = Vec::new();
        for _ in 0..25 {
            held.push(TcpStream::connect(gateway.https).await.unwrap());
        }
        let refused = f64::from(round) * 5.0;
        let series = r#"callgate_connections_refused_total{listener="https"}"#;
        eventually("five refusals more", async || (gateway.metric(series).await == Some(refused)).then_some(())).await;
        eventually("the warning", async || {
            (lines("listen.max_connections is reached") == round as usize).then_some(())
        })
        .await;
        drop(held);
        eventually("room", async || (lines("connections are accepted again") == round as usize).then_some(())).await;
        // It says so as soon as there is some.
        let series = r#"callgate_connections_open{listener="https"}"#;
        eventually("all to be closed", async || (gateway.metric(series).await == Some(0.0)).then_some(())).await;
    }
}

#[tokio::test]
async fn trusted_proxies_may_have_all_connections() {
    let (_upstream, gateway, token) = stage("", "", "trusted_proxies: [127.0.0.2]").await;
    let _idle = join_all((0..19).map(|_| connect_from("127.0.0.2", &gateway))).await;
    eventually("all to be open", async || {
        (gateway.metric(r#"callgate_connections_open{listener="https"}"#).await == Some(19.0)).then_some(())
    })
    .await;
    let answer = ask(&gateway, connect_from("127.0.0.2", &gateway).await, &token).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    refused(&gateway, 0.0).await;
}

#[tokio::test]
async fn behind_the_proxy_protocol_the_clients_are_counted() {
    let listen = ", proxy_protocol: { from: [127.0.0.1] }, max_connections_per_client: 1";
    let (_upstream, gateway, token) = stage(listen, "", "").await;
    let connect = async |client: &str| {
        let mut socket = TcpStream::connect(gateway.https).await.unwrap();
        let family = if client.contains(':') { "TCP6" } else { "TCP4" };
        socket.write_all(format!("PROXY {family} {client} {client} 5000 443\r\n").as_bytes()).await.unwrap();
        socket
    };
    let mut held = Vec::new();
    for client in ["192.0.2.7", "2001:db8::7"] {
        let name = ServerName::try_from("localhost").unwrap();
        let connector = connector(&gateway.site.path("cert.pem"), "http/1.1");
        held.push(connector.connect(name, connect(client).await).await.unwrap());
    }
    for (client, served) in
        [("192.0.2.8", true), ("2001:db8:0:1::7", true), ("192.0.2.7", false), ("2001:db8::8", false)]
    {
        let answer = ask(&gateway, connect(client).await, &token).await;
        assert_eq!(answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 ")), served, "{client}");
    }
    refused(&gateway, 2.0).await;
}

/// Two bytes a second, until there is an answer.
async fn trickle(gateway: &Gateway, token: &Token) -> String {
    let head = format!(
        "POST /echo HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-length: 100000\r\n\r\n",
        token.secret
    );
    let mut stream = raw(gateway, "http/1.1").await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let write = async {
        while writer.write_all(b"x").await.is_ok() {
            let _ = writer.flush().await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    tokio::select! {
        read = reader.read_to_end(&mut answer) => drop(read),
        () = write => unreachable!(),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The same over HTTP/2.
async fn trickle_frames(gateway: &Gateway, token: &Token) -> u16 {
    let mut frames = Frames::connect(gateway).await;
    let block = [request("POST", "/echo", Some(token)), field(b"content-length", b"100000")].concat();
    frames.headers(1, &block, false).await;
    let (mut received, mut sender) = frames.split();
    let write = async {
        while sender.write_all(&encode(kind::DATA, 0, 1, b"x")).await.is_ok() {
            let _ = sender.flush().await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        std::future::pending::<()>().await;
    };
    // Read in one future to its end: a frame of which a part was read must not be dropped.
    let read = async {
        loop {
            let frame = received.next().await.expect("an answer");
            if frame.kind == kind::HEADERS {
                return frame.status();
            }
        }
    };
    tokio::select! {
        status = read => status,
        () = write => unreachable!(),
    }
}

#[tokio::test]
async fn uploads_that_trickle_get_408() {
    for route in [", min_upload_rate: none, body_timeout: 2s", ", min_upload_rate: 1KiB, body_timeout: none"] {
        let (_upstream, gateway, token) = stage("", route, "").await;
        // The rate counts after 30 seconds.
        let both = async { tokio::join!(trickle(&gateway, &token), trickle_frames(&gateway, &token)) };
        let (first, second) = tokio::time::timeout(Duration::from_secs(120), both).await.expect("answers");
        assert!(first.starts_with("HTTP/1.1 408 "), "{first}");
        assert_eq!(second, 408);
        let lines = gateway.access("/echo", 2).await;
        assert!(lines.iter().all(|line| line["error"].as_str().unwrap().contains("body_timeout")), "{lines:?}");
    }
}
