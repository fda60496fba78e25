//! Upstreams at Unix sockets.

use std::path::Path;

use futures_util::{SinkExt, StreamExt};
use http::Version;
use tokio::net::{TcpStream, UnixListener};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::{site, stage};
use crate::support::client::{get, http1, http2, raw};
use crate::support::eventually;
use crate::support::upstream::Upstream;

/// A Unix socket in front of an upstream.
fn socket_before(path: &Path, upstream: std::net::SocketAddr) -> tokio::task::JoinHandle<()> {
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        // They end with this task.
        let mut connections = JoinSet::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut upstream = TcpStream::connect(upstream).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut socket, &mut upstream).await;
            });
        }
    })
}

#[tokio::test]
async fn both_versions_of_http_work() {
    let folder = tempfile::tempdir().unwrap();
    for (protocol, version) in [("http1", Version::HTTP_11), ("http2", Version::HTTP_2), ("auto", Version::HTTP_11)] {
        let upstream = if protocol == "http2" { Upstream::http2(100).await } else { Upstream::start().await };
        let path = folder.path().join(format!("{protocol}.sock"));
        let socket = socket_before(&path, upstream.address);
        for (more, host) in [("", "localhost:"), (", host: endpoint", "localhost")] {
            let endpoint = format!("unix:{}", path.display());
            let (gateway, token) = stage(std::slice::from_ref(&endpoint), &format!(", protocol: {protocol}{more}"), "");
            let client = http2(&gateway);
            for _ in 0..3 {
                let answer = get(&client, &gateway, "/bytes/100000", &token).await;
                assert_eq!((answer.status().as_u16(), answer.bytes().await.unwrap().len()), (200, 100_000));
            }
            let seen = upstream.seen().pop().unwrap();
            assert_eq!(seen.version, version, "{protocol}");
            let named = match version {
                Version::HTTP_2 => seen.target.strip_prefix("http://").unwrap().to_owned(),
                _ => seen.headers["host"].to_str().unwrap().to_owned(),
            };
            assert!(named.starts_with(host), "{protocol}: {named}");
            assert_eq!(gateway.access("/bytes/100000", 3).await[0]["endpoint"], endpoint.as_str());
        }
        assert_eq!(upstream.connections(), 2, "{protocol}");
        socket.abort();
    }
}

#[tokio::test]
async fn a_socket_may_appear_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("late.sock");
    let (gateway, token) = stage(&[format!("unix:{}", path.display())], "", "");
    let client = http2(&gateway);
    assert_eq!(get(&client, &gateway, "/x", &token).await.status(), 502);
    let upstream = Upstream::start().await;
    let socket = socket_before(&path, upstream.address);
    assert_eq!(get(&client, &gateway, "/x", &token).await.status(), 200);
    // The service starts anew: another socket at the same path.
    socket.abort();
    std::fs::remove_file(&path).unwrap();
    let upstream = Upstream::start().await;
    socket_before(&path, upstream.address);
    eventually("the new socket to be used", async || {
        get(&client, &gateway, "/x", &token).await;
        (!upstream.seen().is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_websocket_passes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("call.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let echo = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(socket).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            socket.send(message).await.unwrap();
        }
    });
    let site = site(&[format!("unix:{}", path.display())], "", "");
    let (token, gateway) = (site.token(&[]), site.serve());
    let mut request = "wss://localhost/call".into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {}", token.secret).parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::client_async(request, raw(&gateway, "http/1.1").await).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    drop(socket);
    echo.abort();
}

#[tokio::test]
async fn at_most_max_idle_connections_are_kept() {
    for (most, made) in [(0, 4), (1, 1)] {
        let upstream = Upstream::start().await;
        let (gateway, token) = stage(&[format!("http://{}", upstream.address)], &format!(", max_idle: {most}"), "");
        for _ in 0..4 {
            get(&http1(&gateway), &gateway, "/echo", &token).await.bytes().await.unwrap();
        }
        assert_eq!(upstream.connections(), made, "max_idle: {most}");
    }
}
