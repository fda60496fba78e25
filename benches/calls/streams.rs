//! Calls over HTTP/2: WebSockets that share connections, each of them an extended CONNECT (RFC 8441).

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Method, Request, Version, header};

use crate::line::{ECHO, FRAME, Way, frame};

/// Calls on one connection; a listener takes 128 at one time unless it is told otherwise.
pub(crate) const EACH: usize = 100;

/// One call.
pub(crate) struct Stream {
    says: SendStream<Bytes>,
    hears: RecvStream,
}

/// Opens so many, on as few connections as they need.
pub(crate) async fn open(way: &Way, count: usize) -> Vec<Stream> {
    let mut calls = Vec::with_capacity(count);
    let mut client = None;
    for number in 0..count {
        if number % EACH == 0 {
            client = Some(connect(way).await);
        }
        let client = client.as_ref().expect("a connection for the first of them");
        calls.push(call(client, way).await);
    }
    calls
}

async fn connect(way: &Way) -> SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(way.connect(b"h2").await).await.expect("HTTP/2");
    tokio::spawn(connection);
    while !client.is_extended_connect_protocol_enabled() {
        // The gateway's settings are on their way.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    client
}

async fn call(client: &SendRequest<Bytes>, way: &Way) -> Stream {
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri("https://localhost/call")
        .version(Version::HTTP_2)
        .extension(Protocol::from_static("websocket"))
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::AUTHORIZATION, &way.authorization)
        .body(())
        .expect("a request");
    let mut client = client.clone().ready().await.expect("a connection");
    let (answer, says) = client.send_request(request, false).expect("a request sent");
    let answer = answer.await.expect("an answer");
    assert_eq!(answer.status(), 200);
    Stream { says, hears: answer.into_body() }
}

impl Stream {
    /// Says a frame and hears its echo.
    pub(crate) async fn is_answered(&mut self) {
        self.says.send_data(frame(0, 0).to_vec().into(), false).expect("something said");
        let mut heard = 0;
        while heard < ECHO + FRAME {
            let piece = self.hears.data().await.expect("an echo").expect("a whole one");
            heard += piece.len();
            self.hears.flow_control().release_capacity(piece.len()).expect("room for more");
        }
    }
}
