//! WebSocket handshakes (RFC 6455 §4): a tunnel begins only when both sides agree on one; until then every byte is judged.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{EVERYTHING, Stage, statuses};
use crate::support::client::{raw, read_to_end};
use crate::support::recorder::Recorder;

const HANDSHAKE: &str = "GET /x HTTP/1.1\r\nhost: a\r\nAUTH\r\nupgrade: websocket\r\nconnection: upgrade\r\norigin: https://page\r\n\
                         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: a, b\r\nsec-websocket-extensions: permessage-deflate\r\n";
const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nsec-websocket-protocol: b\r\n\r\n";

#[tokio::test]
async fn rfc6455_4_2_1_the_handshake_passes_as_it_is_and_its_origin_with_it() {
    let stage = Stage::before(Recorder::answering(|_| SWITCH.to_vec()).await, EVERYTHING);
    let mut client = raw(&stage.gateway, "http/1.1").await;
    client.write_all(&stage.bytes(&format!("{HANDSHAKE}sec-websocket-version: 13\r\n\r\n"))).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("sec-websocket-protocol: b\r\n"), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    let message = stage.upstream.only();
    assert_eq!((message.all("upgrade"), message.all("connection")), (vec!["websocket"], vec!["upgrade"]));
    assert_eq!(message.all("sec-websocket-key"), ["dGhlIHNhbXBsZSBub25jZQ=="]);
    assert_eq!((message.all("sec-websocket-version"), message.all("origin")), (vec!["13"], vec!["https://page"]));
    assert_eq!(message.all("sec-websocket-protocol"), ["a, b"]);
    assert_eq!(message.all("sec-websocket-extensions"), ["permessage-deflate"]);
}

/// An upstream that does not switch leaves the client in HTTP: what it sends next is a request, with all that this asks for.
#[tokio::test]
async fn rfc6455_4_2_2_without_a_101_the_next_bytes_are_read_as_a_request() {
    for answer in [
        "HTTP/1.1 426 Upgrade Required\r\nsec-websocket-version: 13\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nupgrade: websocket\r\nconnection: upgrade\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n",
    ] {
        let stage = Stage::before(
            Recorder::answering(move |message| {
                if message.line().contains("/x") { answer.into() } else { crate::support::recorder::OK.to_vec() }
            })
            .await,
            EVERYTHING,
        );
        let mut client = raw(&stage.gateway, "http/1.1").await;
        client.write_all(&stage.bytes(&format!("{HANDSHAKE}sec-websocket-version: 777\r\n\r\n"))).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert_eq!(statuses(&head), [&answer[9..12]], "{head}");
        assert_eq!(head.contains("sec-websocket-version: 13"), answer.contains("426"), "RFC 6455 §4.4: {head}");
        // Without a token, and then with one: neither goes past the gateway.
        client.write_all(b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let rest = read_to_end(&mut client).await;
        assert_eq!(statuses(&rest), ["401"], "{answer:?}: {rest}");
        assert_eq!(stage.upstream.messages().len(), 1, "{answer:?}");
    }
}

/// A 101 counts only when it names what was asked for.
#[tokio::test]
async fn rfc6455_4_1_a_switch_to_something_else_is_502() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket, h2c\r\nconnection: upgrade\r\n\r\n",
    ] {
        let stage = Stage::before(Recorder::answering(move |_| answer.into()).await, EVERYTHING);
        let sent = stage.send(&format!("{HANDSHAKE}sec-websocket-version: 13\r\n\r\n")).await;
        assert_eq!(statuses(&sent), ["502"], "{answer:?}: {sent}");
    }
}

/// Where the body of a request ends its frames would begin: who asks with a body, or with another method, asks for no WebSocket.
#[tokio::test]
async fn rfc6455_4_1_a_handshake_is_a_get_without_a_body() {
    for (method, body, opens) in [
        ("POST", "content-length: 5\r\n\r\nhello", false),
        ("POST", "content-length: 0\r\n\r\n", false),
        ("GET", "content-length: 5\r\n\r\nhello", false),
        ("GET", "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false),
        ("GET", "content-length: 0\r\n\r\n", true),
        ("GET", "\r\n", true),
    ] {
        let switch = |message: &crate::support::recorder::Message| match message.all("upgrade").is_empty() {
            true => crate::support::recorder::OK.to_vec(),
            false => SWITCH.to_vec(),
        };
        let stage = Stage::before(Recorder::answering(switch).await, EVERYTHING);
        let handshake = HANDSHAKE.replacen("GET", method, 1);
        let mut client = raw(&stage.gateway, "http/1.1").await;
        client.write_all(&stage.bytes(&format!("{handshake}sec-websocket-version: 13\r\n{body}"))).await.unwrap();
        let mut status = [0; 12];
        client.read_exact(&mut status).await.unwrap();
        let expected: &[u8] = if opens { b"HTTP/1.1 101" } else { b"HTTP/1.1 200" };
        assert_eq!(status, expected, "{method} {body:?}");
        let message = stage.upstream.only();
        assert_eq!(message.body.contains("hello"), body.contains("hello"), "{method} {body:?}: {message:?}");
    }
}

#[tokio::test]
async fn rfc6455_4_2_2_a_rejected_client_opens_no_tunnel() {
    let stage = Stage::before(Recorder::answering(|_| SWITCH.to_vec()).await, EVERYTHING);
    let handshake = HANDSHAKE.replace("AUTH\r\n", "");
    let text = format!("{handshake}sec-websocket-version: 13\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\nAUTH\r\n\r\n");
    let answer = stage.send(&text).await;
    assert_eq!(statuses(&answer)[0], "401", "{answer}");
    // The bytes behind it were a request of their own, with a good token.
    assert!(stage.upstream.messages().iter().all(|message| message.all("upgrade").is_empty()));
}
