//! Kept connections of services that end under the next request, and services that answer before they have read everything.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::stage;
use crate::support::calls::call;
use crate::support::client::{get, http1, http2, raw};
use crate::support::eventually;
use crate::support::gateway::Gateway;

/// Reads a head; `None` at the end.
async fn head(socket: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// Answers the first request on each connection, and closes when it has read the head of the second. Handshakes begin calls.
async fn one_answer_each() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let first = head(&mut socket).await?;
                let key = first.lines().find_map(|line| line.strip_prefix("sec-websocket-key: "));
                let answer = match key {
                    None => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned(),
                    Some(key) => format!(
                        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                         sec-websocket-accept: {}\r\n\r\n",
                        derive_accept_key(key.as_bytes())
                    ),
                };
                socket.write_all(answer.as_bytes()).await.ok()?;
                head(&mut socket).await
            });
        }
    });
    address
}

/// An HTTP/2 client whose server has sent its settings.
async fn h2_client(gateway: &Gateway) -> SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(raw(gateway, "h2").await).await.unwrap();
    tokio::spawn(connection);
    eventually("WebSockets over HTTP/2", async || client.is_extended_connect_protocol_enabled().then_some(())).await;
    client
}

#[tokio::test]
async fn a_handshake_that_meets_a_closed_connection_is_sent_again() {
    let (gateway, token) = stage(&[format!("http://{}", one_answer_each().await)], "", "");
    for _ in 0..3 {
        assert_eq!(get(&http1(&gateway), &gateway, "/warm", &token).await.status(), 200);
        assert!(call(&gateway, &token, "/call").await.is_ok());
        assert_eq!(get(&http1(&gateway), &gateway, "/warm", &token).await.status(), 200);
        let mut client = h2_client(&gateway).await;
        let mut request = Request::builder().method(Method::CONNECT).uri("https://localhost/call").body(()).unwrap();
        request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
        request.headers_mut().insert("authorization", format!("Bearer {}", token.secret).parse().unwrap());
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        let (answer, _stream) = client.send_request(request, false).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn an_answer_that_comes_before_the_upload_has_ended_is_passed_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // It leaves the upload unread, so that its system resets the connection.
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                head(&mut socket).await?;
                let answer = "HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbig";
                socket.write_all(answer.as_bytes()).await.ok()
            });
        }
    });
    let (gateway, token) = stage(&[format!("http://{address}")], "", "");
    let client = http2(&gateway);
    for round in 0..20 {
        let request = client.post(gateway.url("/x")).bearer_auth(&token.secret).body(vec![0; 4 << 20]);
        let answer = request.send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (413, "big"), "{round}");
    }
}

#[tokio::test]
async fn names_of_headers_are_in_the_case_that_the_service_needs() {
    for (keys, name) in [("", "\r\nx-request-id: "), (", header_case: title", "\r\nX-Request-Id: ")] {
        let upstream = crate::support::recorder::Recorder::start().await;
        let (gateway, token) = stage(&[format!("http://{}", upstream.address)], keys, "");
        assert_eq!(get(&http2(&gateway), &gateway, "/x", &token).await.status(), 200);
        assert!(upstream.received().contains(name), "{}", upstream.received());
    }
}

#[tokio::test]
async fn a_service_may_get_the_names_of_headers_as_the_client_wrote_them() {
    let upstream = crate::support::recorder::Recorder::start().await;
    let (gateway, token) = stage(&[format!("http://{}", upstream.address)], ", header_case: preserve", "");
    let request = format!(
        "POST /x HTTP/1.1\r\nHOST: a\r\nauthorization: Bearer {}\r\nX-soap-ACTION: do\r\nx-Twice: 1\r\nX-TWICE: 2\r\n\
         VIA: 1.0 other\r\nContent-length: 2\r\nConnection: close\r\n\r\nhi",
        token.secret
    );
    let answer = crate::support::client::exchange(&gateway, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let received = upstream.received();
    for line in [
        "HOST: a",
        "X-soap-ACTION: do",
        "x-Twice: 1",
        "X-TWICE: 2",
        "Content-length: 2",
        "VIA: 1.0 other, 1.1 callgate",
        "X-Forwarded-Proto: https",
    ] {
        assert!(received.contains(&format!("\r\n{line}\r\n")), "{line}: {received}");
    }
    assert!(!received.to_ascii_lowercase().contains("\r\nconnection: close"), "{received}");
    // Over HTTP/2 there is no case to keep.
    assert_eq!(get(&http2(&gateway), &gateway, "/y", &token).await.status(), 200);
    assert!(upstream.received().contains("\r\nX-Request-Id: "), "{}", upstream.received());
}

#[tokio::test]
async fn names_of_headers_keep_their_case_when_a_request_is_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let keys = ", header_case: preserve, retry: { min_per_second: 10 }";
    let upstream = crate::support::recorder::Recorder::start().await;
    let endpoints = [format!("http://{}", listener.local_addr().unwrap()), format!("http://{}", upstream.address)];
    let (gateway, token) = stage(&endpoints, &format!("{keys}, balance: round_robin"), "");
    // It breaks off when it has read the request.
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            head(&mut socket).await;
        }
    });
    for _ in 0..4 {
        let request = format!(
            "GET /x HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\nX-soap-ACTION: do\r\nconnection: close\r\n\r\n",
            token.secret
        );
        let answer = crate::support::client::exchange(&gateway, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let received = upstream.received();
    assert_eq!(received.matches("\r\nX-soap-ACTION: do\r\n").count(), 4, "{received}");
}

#[tokio::test]
async fn a_request_that_should_have_a_body_says_that_it_has_none() {
    let upstream = crate::support::recorder::Recorder::start().await;
    let (gateway, token) = stage(&[format!("http://{}", upstream.address)], "", "");
    let mut client = h2_client(&gateway).await;
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::GET, Method::HEAD, Method::DELETE] {
        let authorization = format!("Bearer {}", token.secret);
        let request = Request::builder().method(method.clone()).uri("https://localhost/x");
        let request = request.header("authorization", &authorization).body(()).unwrap();
        let (answer, _) = client.send_request(request, true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200, "{method}");
        let over_http1 =
            format!("{method} /x HTTP/1.1\r\nhost: a\r\nauthorization: {authorization}\r\nconnection: close\r\n\r\n");
        let answer = crate::support::client::exchange(&gateway, over_http1.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{method}: {answer}");
        let lengths = if matches!(method, Method::POST | Method::PUT | Method::PATCH) { &["0"][..] } else { &[] };
        for message in &upstream.messages()[upstream.messages().len() - 2..] {
            assert_eq!(
                (message.all("content-length").as_slice(), message.all("transfer-encoding").len()),
                (lengths, 0)
            );
        }
    }
}
