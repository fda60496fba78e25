//! Hop-by-hop and forwarding headers (RFC 9110 §7.6, §7.8, RFC 7239): first removed, then set.

use super::{EVERYTHING, Stage};
use crate::support::recorder::Recorder;

#[tokio::test]
async fn rfc9110_7_6_1_hop_by_hop_fields_are_removed_both_ways() {
    let upstream = Recorder::answering(|_| {
        b"HTTP/1.1 200 OK\r\nconnection: keep-alive, x-theirs\r\nkeep-alive: timeout=5\r\nproxy-connection: keep-alive\r\n\
          x-theirs: 1\r\nupgrade: h2c\r\nx-kept: 1\r\nproxy-authenticate: Basic\r\ncontent-length: 2\r\n\r\nok"
            .to_vec()
    })
    .await;
    let stage = Stage::before(upstream, EVERYTHING);
    let lines = "connection: X-Mine, keep-alive\r\nConnection: x-other\r\nx-mine: 1\r\nx-other: 1\r\nkeep-alive: timeout=5\r\n\
                 proxy-connection: keep-alive\r\nproxy-authorization: Basic x\r\nte: gzip, trailers;q=0.5\r\nupgrade: x\r\nx-kept: 1\r\n";
    let text = format!("GET /x HTTP/1.1\r\nhost: a\r\nAUTH\r\n{lines}connection: close\r\n\r\n");
    let answer = stage.send(&text).await;
    let message = stage.upstream.only();
    for name in
        ["connection", "x-mine", "x-other", "keep-alive", "proxy-connection", "proxy-authorization", "te", "upgrade"]
    {
        assert_eq!(message.all(name), Vec::<&str>::new(), "{name}: {message:?}");
    }
    assert_eq!(message.all("x-kept"), ["1"]);
    for name in ["x-theirs", "keep-alive:", "proxy-connection", "upgrade"] {
        assert!(!answer.contains(name), "{name}: {answer}");
    }
    assert!(answer.contains("x-kept: 1\r\n"), "{answer}");
}

/// Headers that `Connection` lists are removed before the gateway sets its own: a client can't remove its identity.
#[tokio::test]
async fn rfc9110_7_6_1_connection_cannot_remove_headers_of_the_gateway() {
    let stage = Stage::new().await;
    let listed = "authorization, x-forwarded-for, x-forwarded-proto, x-forwarded-host, forwarded, via, x-request-id, \
                  x-callgate-token-id, x-callgate-account, x-callgate-permissions, x-callgate-plan, host, content-length, content-type";
    let text = format!(
        "POST /x HTTP/1.1\r\nhost: a\r\nAUTH\r\ncontent-type: text/plain\r\ncontent-length: 5\r\nconnection: close, {listed}\r\n\r\nhello"
    );
    let answer = stage.send(&text).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let message = stage.upstream.only();
    assert_eq!((message.body.as_str(), message.all("content-length")), ("hello", vec!["5"]));
    assert_eq!(message.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(message.all("x-callgate-token-id"), [stage.token.id.as_str()]);
    for name in listed.split(", ").filter(|name| *name != "authorization") {
        // A token without permissions has none to tell.
        let one = usize::from(name != "x-callgate-permissions" || !message.all(name).is_empty());
        assert_eq!(message.all(name).len(), one, "{name}: {message:?}");
    }
    // Without a credential it is 401, listed or not.
    let text = "GET /x HTTP/1.1\r\nhost: a\r\nconnection: close, authorization\r\n\r\n";
    assert!(stage.send(text).await.starts_with("HTTP/1.1 401 "));
}

#[tokio::test]
async fn rfc9110_7_6_1_connection_cannot_remove_the_framing_of_a_response() {
    let upstream = Recorder::answering(|_| {
        b"HTTP/1.1 200 OK\r\nconnection: content-length, content-type, x-request-id, x-ratelimit-limit\r\n\
          content-type: text/plain\r\ncontent-length: 2\r\n\r\nok"
            .to_vec()
    })
    .await;
    let stage = Stage::before(upstream, EVERYTHING);
    let answer = stage.send("GET /x HTTP/1.1\r\nhost: a\r\nAUTH\r\nconnection: close\r\n\r\n").await;
    for line in
        ["content-length: 2\r\n", "content-type: text/plain\r\n", "x-request-id: ", "x-ratelimit-limit: 10000\r\n"]
    {
        assert!(answer.contains(line), "{line}: {answer}");
    }
}

#[tokio::test]
async fn rfc9110_7_6_3_via_is_appended_to_those_of_others() {
    let stage = Stage::new().await;
    assert_eq!(stage.forwarded("").await.all("via"), ["1.1 callgate"]);
    let message = stage.forwarded("via: 1.0 fred\r\nvia: 1.1 p.example\r\n").await;
    assert_eq!(message.all("via"), ["1.0 fred, 1.1 p.example, 1.1 callgate"]);
}

#[tokio::test]
async fn rfc9110_7_8_and_rfc9113_3_1_an_upgrade_to_h2c_or_anything_else_is_not_passed_on() {
    let stage = Stage::new().await;
    for lines in [
        "upgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\nconnection: upgrade, http2-settings\r\n",
        "upgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\nconnection: upgrade\r\n",
        "upgrade: h2c\r\nHTTP2_Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "upgrade: TLS/1.0\r\nconnection: upgrade\r\n",
        "upgrade: websocket\r\n",
    ] {
        let message = stage.forwarded(lines).await;
        for name in ["upgrade", "http2-settings", "http2_settings", "connection"] {
            assert_eq!(message.all(name), Vec::<&str>::new(), "{lines:?}: {message:?}");
        }
    }
    // Beside a WebSocket, which is.
    for lines in ["upgrade: websocket, h2c", "upgrade: websocket\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQ"] {
        let message = stage.forwarded(&format!("{lines}\r\nconnection: upgrade, http2-settings\r\n")).await;
        assert_eq!((message.all("upgrade"), message.all("connection")), (vec!["websocket"], vec!["upgrade"]));
        assert_eq!(message.all("http2-settings"), Vec::<&str>::new(), "{lines:?}: {message:?}");
    }
    // A client of HTTP/1.0 can't ask for one at all.
    let text = "GET /x HTTP/1.0\r\nhost: a\r\nAUTH\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
    assert!(stage.send(text).await.contains(" 200 OK\r\n"));
    assert_eq!(stage.upstream.last().all("upgrade"), Vec::<&str>::new());
}

#[tokio::test]
async fn rfc9112_7_4_te_is_forwarded_as_trailers_only() {
    let stage = Stage::new().await;
    for (te, passed) in [("trailers", vec!["trailers"]), ("Trailers", vec!["trailers"]), ("gzip", vec![]), ("", vec![])]
    {
        let text = format!("GET /x HTTP/1.1\r\nhost: a\r\nAUTH\r\nte: {te}\r\nconnection: close, te\r\n\r\n");
        stage.send(&text).await;
        assert_eq!(stage.upstream.last().all("te"), passed, "{te}");
    }
}

#[tokio::test]
async fn rfc7239_5_forwarding_headers_of_untrusted_clients_are_replaced() {
    let stage = Stage::new().await;
    let lines = "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 7.7.7.7\r\nX_Forwarded_For: 8.8.8.8\r\nx-forwarded-proto: http\r\n\
                 x-forwarded-host: evil\r\nx-forwarded-server: evil\r\nx-forwarded-user: root\r\nforwarded: for=6.6.6.6\r\n\
                 x-real-ip: 6.6.6.6\r\nX_Real_Ip: 6.6.6.6\r\nX.Forwarded.For: 6.6.6.6\r\n";
    let message = stage.forwarded(lines).await;
    assert_eq!(message.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!((message.all("x-forwarded-proto"), message.all("x-forwarded-host")), (vec!["https"], vec!["a"]));
    assert_eq!(message.all("forwarded"), ["for=127.0.0.1;proto=https;host=\"a\""]);
    for text in ["6.6.6.6", "7.7.7.7", "8.8.8.8", "evil", "root"] {
        assert!(!message.head.contains(text), "{text}: {message:?}");
    }
}

#[tokio::test]
async fn rfc9110_11_6_2_the_token_is_forwarded_in_no_form() {
    let stage = Stage::new().await;
    let message = stage.forwarded("").await;
    assert!(!message.head.contains(&stage.token.secret), "{message:?}");
    assert!(!message.names().contains(&"authorization".to_owned()));
}
