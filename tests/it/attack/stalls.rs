//! Clients that stall: each is disconnected at its timeout, and meanwhile takes one connection and little memory.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::Stage;
use crate::support::WAIT_TIMEOUT;
use crate::support::client::{raw, read_to_end};
use crate::support::frames::{Frames, kind, request};

/// Short timeouts keep the tests short; they are long enough for good clients and many handshakes on a busy machine.
const HASTY: &str = ", handshake_timeout: 5s, header_timeout: 3s, body_idle_timeout: 2s, idle_timeout: 5s";
const CONNECTIONS: usize = 100;

/// Sends a text for sure: many connections share a task here, and what is written waits in TLS when that task has had its turn.
async fn send(stream: &mut TlsStream<TcpStream>, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

#[tokio::test]
async fn stalled_handshakes_are_closed() {
    let stage = Stage::new(HASTY).await;
    // Nothing at all, and the beginning of a ClientHello.
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let stalled = join_all((0..CONNECTIONS).map(|_| async {
            let mut socket = TcpStream::connect(stage.gateway.https).await.unwrap();
            socket.write_all(bytes).await.unwrap();
            let mut answer = Vec::new();
            let _ = tokio::time::timeout(WAIT_TIMEOUT, socket.read_to_end(&mut answer))
                .await
                .expect("the gateway gives up");
        }));
        stage.beside_good_clients(stalled).await;
    }
}

/// Slowloris: a header line now and then.
#[tokio::test]
async fn slow_heads_get_408() {
    let stage = Stage::new(HASTY).await;
    let trickle = join_all((0..CONNECTIONS).map(|_| async {
        let mut stream = raw(&stage.gateway, "http/1.1").await;
        send(&mut stream, "GET / HTTP/1.1\r\nhost: a\r\n").await;
        let (mut reader, mut writer) = tokio::io::split(stream);
        let read = async {
            let mut answer = Vec::new();
            let _ = reader.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        };
        let write = async {
            while writer.write_all(b"x: y\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = tokio::time::timeout(WAIT_TIMEOUT, read) => answer.expect("the gateway gives up"),
            () = write => unreachable!(),
        }
    }));
    for answer in stage.beside_good_clients(trickle).await {
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    assert_eq!(stage.arrived(), 0);
}

/// R-U-Dead-Yet: a body that was announced and never comes.
#[tokio::test]
async fn stalled_bodies_get_408() {
    let stage = Stage::new(HASTY).await;
    let stalled = join_all((0..CONNECTIONS).map(|_| async {
        let mut stream = raw(&stage.gateway, "http/1.1").await;
        let head = "POST /open/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\na";
        send(&mut stream, head).await;
        read_to_end(&mut stream).await
    }));
    for answer in stage.beside_good_clients(stalled).await {
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    stage.gone().await;
}

/// Each asks for much and reads nothing of it.
#[tokio::test]
async fn clients_that_stop_reading_are_cut_off() {
    let stage = Stage::new(HASTY).await;
    let stalled = async {
        let held = join_all((0..CONNECTIONS).map(|_| async {
            let mut stream = raw(&stage.gateway, "http/1.1").await;
            send(&mut stream, "GET /open/bytes/50000000 HTTP/1.1\r\nhost: a\r\n\r\n").await;
            stream
        }))
        .await;
        let lines = stage.gateway.access("/open/bytes/50000000", CONNECTIONS).await;
        assert!(lines.iter().all(|line| line["cut"] == true), "{lines:?}");
        drop(held);
    };
    stage.beside_good_clients(stalled).await;
    stage.gone().await;
}

/// The same over HTTP/2, where a window that stays closed stalls a hundred answers on one connection (CVE-2019-9517).
#[tokio::test]
async fn streams_with_a_closed_window_are_reset() {
    let stage = Stage::new(HASTY).await;
    let stalled = async {
        // SETTINGS_INITIAL_WINDOW_SIZE: 0.
        let mut frames = Frames::connect_with(&stage.gateway, &[(4, 0)]).await;
        for number in 0..100 {
            frames.headers(number * 2 + 1, &request("GET", "/open/bytes/2000000", None), true).await;
        }
        let mut reset = 0;
        while reset < 100 {
            let Some(frame) = frames.next().await else { break };
            reset += usize::from(frame.kind == kind::RST_STREAM);
            assert!(frame.kind != kind::DATA || frame.payload.is_empty(), "there is no room for any");
        }
        let lines = stage.gateway.access("/open/bytes/2000000", 100).await;
        assert!(lines.iter().all(|line| line["cut"] == true), "{lines:?}");
    };
    stage.beside_good_clients(stalled).await;
    stage.gone().await;
}

/// A window that opens by one byte at a time moves an answer, but not for long.
#[tokio::test]
async fn a_stream_whose_window_opens_byte_by_byte_is_reset() {
    let stage = Stage::new(HASTY).await;
    let trickle = async {
        let mut frames = Frames::connect_with(&stage.gateway, &[(4, 0)]).await;
        frames.headers(1, &request("GET", "/open/bytes/2000000", None), true).await;
        loop {
            frames.send(kind::WINDOW_UPDATE, 0, 1, &1u32.to_be_bytes()).await;
            match tokio::time::timeout(Duration::from_millis(50), frames.next()).await {
                Ok(None) => return,
                Ok(Some(frame)) if frame.kind == kind::RST_STREAM => return,
                Ok(Some(_)) | Err(_) => {}
            }
        }
    };
    stage
        .beside_good_clients(async { tokio::time::timeout(WAIT_TIMEOUT, trickle).await.expect("the stream is reset") })
        .await;
    stage.gone().await;
}

/// A head over HTTP/2 that never ends holds its connection for as long as one that says nothing.
#[tokio::test]
async fn silent_http2_connections_are_closed() {
    let stage = Stage::new(HASTY).await;
    let gateway = &stage.gateway;
    let silent = join_all((0..CONNECTIONS).map(|number| async move {
        let mut frames = Frames::connect(gateway).await;
        if number % 2 == 0 {
            frames.send(kind::HEADERS, 0, 1, &request("GET", "/open/x", None)).await;
        }
        frames.goodbye().await
    }));
    stage.beside_good_clients(silent).await;
    stage.gone().await;
}
