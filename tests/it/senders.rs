//! What clients really send, and some gateways stumble over: it passes, over HTTP/1.1 and HTTP/2 alike, and arrives in one form.

use reqwest::{Client, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::client::{exchange, http1, http2, raw};
use crate::support::frames::{END_HEADERS, END_STREAM, Frames, field, kind, request};
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::recorder::{Message, Recorder};

struct Stage {
    service: Recorder,
    gateway: Gateway,
    token: Token,
}

impl Stage {
    async fn new(route: &str) -> Self {
        Self::before(Recorder::start().await, route)
    }

    fn before(service: Recorder, route: &str) -> Self {
        let site = Site::in_memory(service.address, &format!("  - {{ path: \"/{{*rest}}\", upstream: up{route} }}"));
        let token = site.token_with(&[], &["--limit", "minute=10000/1m", "--limit", "hour=10000/1h"]);
        let gateway = site.serve();
        Self { service, gateway, token }
    }

    /// Sends a request line and header lines with the token; the answer.
    async fn send(&self, line: &str, more: &str) -> String {
        let credential = format!("authorization: Bearer {}", self.token.secret);
        exchange(&self.gateway, format!("{line}\r\n{credential}\r\n{more}connection: close\r\n\r\n").as_bytes()).await
    }

    /// What arrives of a request that passes.
    async fn passed(&self, line: &str, more: &str) -> Message {
        let answer = self.send(line, more).await;
        assert!(answer.contains(" 200 OK\r\n"), "{line} {more}: {answer}");
        self.service.last()
    }

    /// The answer to a GET on HTTP/2, with more fields.
    async fn http2(&self, path: &str, more: &[(&str, &str)]) -> u16 {
        let mut block = request("GET", path, Some(&self.token));
        for (name, value) in more {
            block.extend(field(name.as_bytes(), value.as_bytes()));
        }
        let mut frames = Frames::connect(&self.gateway).await;
        let (first, rest) = block.split_at(block.len().min(16_384));
        frames.send(kind::HEADERS, END_STREAM | if rest.is_empty() { END_HEADERS } else { 0 }, 1, first).await;
        for fragment in rest.chunks(16_384) {
            let flags = if fragment.len() < 16_384 { END_HEADERS } else { 0 };
            frames.send(kind::CONTINUATION, flags, 1, fragment).await;
        }
        loop {
            let frame = frames.next().await.expect("an answer");
            assert_ne!((frame.kind, frame.flags & END_STREAM), (kind::RST_STREAM, 0), "{path}: a reset");
            if frame.kind == kind::HEADERS {
                return frame.status();
            }
        }
    }
}

async fn get(client: &Client, stage: &Stage, path: &str) -> Response {
    crate::support::client::get(client, &stage.gateway, path, &stage.token).await
}

/// WHATWG URL, the percent-encode set of queries: browsers leave the rest as it is.
#[tokio::test]
async fn what_browsers_leave_in_a_query_passes_and_arrives_as_it_is() {
    let stage = Stage::new("").await;
    let query = "/x?q=`a`&!$%27()*+,-./:;=?@[\\]^_{|}~";
    assert_eq!(
        stage.passed(&format!("GET {query} HTTP/1.1\r\nhost: a"), "").await.line(),
        format!("GET {query} HTTP/1.1")
    );
    assert_eq!(stage.http2(query, &[]).await, 200);
    assert_eq!(stage.service.last().line(), format!("GET {query} HTTP/1.1"));
    // In a path they escape it.
    let answer = stage.send("GET /`?` HTTP/1.1\r\nhost: a", "").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

/// RFC 9113 §8.2.3.
#[tokio::test]
async fn cookies_that_come_one_by_one_count_and_arrive_as_one_line() {
    let stage = Stage::new("").await;
    let cookies: Vec<String> = (0..180).map(|number| format!("c{number}=value")).collect();
    let fields: Vec<_> = cookies.iter().map(|cookie| ("cookie", &**cookie)).collect();
    assert_eq!(stage.http2("/x", &fields).await, 200);
    assert_eq!(stage.service.last().all("cookie"), [cookies.join("; ")]);
    // Other fields count one by one, and a line that is too long is too long in pieces.
    let others: Vec<_> = (0..180).map(|_| ("x-other", "value")).collect();
    assert_eq!(stage.http2("/x", &others).await, 431);
    let piece = "x".repeat(500);
    let long: Vec<_> = (0..75).map(|_| ("cookie", &*piece)).collect();
    assert_eq!(stage.http2("/x", &long).await, 431);
}

#[tokio::test]
async fn hosts_are_understood_however_they_are_written() {
    let stage = Stage::new("").await;
    for (host, forwarded) in
        [("a:", "a"), ("[::1]", "[::1]"), ("[::1]:8443", "[::1]:8443"), ("[::1]:", "[::1]"), ("a.:8443", "a.:8443")]
    {
        let message = stage.passed(&format!("GET /x HTTP/1.1\r\nhost: {host}"), "").await;
        assert_eq!(
            (message.all("x-forwarded-host"), message.all("host")),
            (vec![forwarded], vec![forwarded]),
            "{host}"
        );
    }
    for host in [":", "a::", "a:80:", "[::1", "[::1]x:"] {
        let answer = stage.send(&format!("GET /x HTTP/1.1\r\nhost: {host}"), "").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{host}: {answer}");
    }
}

#[tokio::test]
async fn without_a_host_no_empty_one_is_forwarded() {
    let stage = Stage::new("").await;
    let message = stage.passed("GET /x HTTP/1.0", "").await;
    assert!(message.all("x-forwarded-host").is_empty(), "{}", message.head);
    assert_eq!(message.all("host"), [stage.service.address.to_string()]);
}

#[tokio::test]
async fn a_length_is_passed_on_without_zeros_before_it() {
    let stage = Stage::new("").await;
    let credential = format!("authorization: Bearer {}", stage.token.secret);
    for (length, body, plain) in [("005", "hello", "5"), ("000", "", "0"), ("0000000010", "0123456789", "10")] {
        let text = format!(
            "POST /x HTTP/1.1\r\nhost: a\r\n{credential}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let answer = exchange(&stage.gateway, text.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let message = stage.service.last();
        assert_eq!((message.all("content-length"), &*message.body), (vec![plain], body));
    }
    // A service's too.
    let answer = |_: &Message| b"HTTP/1.1 200 OK\r\ncontent-length: 002\r\n\r\nok".to_vec();
    let stage = Stage::before(Recorder::answering(answer).await, "");
    for client in [http1(&stage.gateway), http2(&stage.gateway)] {
        let response = get(&client, &stage, "/x").await;
        assert_eq!(response.headers()["content-length"], "2");
        assert_eq!(response.text().await.unwrap(), "ok");
    }
}

#[tokio::test]
async fn escaped_whitespace_in_a_path_is_named_and_may_be_allowed() {
    let stage = Stage::new("").await;
    for (path, sign) in [("/a%09", "%09"), ("/a%0Ab", "%0A"), ("/%0d/b", "%0D"), ("/a%00", "%00"), ("/a%1f", "%1F")] {
        for client in [http1(&stage.gateway), http2(&stage.gateway)] {
            let response = get(&client, &stage, path).await;
            assert_eq!(response.status(), 400, "{path}");
            let text = response.text().await.unwrap();
            assert!(text.contains(sign) && text.contains("\"code\":\"invalid_request\""), "{path}: {text}");
        }
    }
    let stage = Stage::new(", allow_path_forms: encoded-whitespace").await;
    for path in ["/a%09", "/a%0Ab", "/%0d%0a/b"] {
        for client in [http1(&stage.gateway), http2(&stage.gateway)] {
            assert_eq!(get(&client, &stage, path).await.status(), 200, "{path}");
            assert_eq!(stage.service.last().line(), format!("GET {path} HTTP/1.1"));
        }
    }
    assert_eq!(get(&http1(&stage.gateway), &stage, "/a%0b").await.status(), 400);
}

/// Some services drop what stands at the end of a path; then it is another one's.
#[tokio::test]
async fn escaped_whitespace_opens_nothing_that_a_more_specific_route_guards() {
    let service = Recorder::start().await;
    let routes = "  - { path: \"/{*rest}\", auth: none, allow_path_forms: encoded-whitespace, upstream: up }\n  \
                  - { path: \"/admin/{*rest}\", upstream: up }";
    let gateway = Site::in_memory(service.address, routes).serve();
    let client = http1(&gateway);
    for end in ["%09", "%0A", "%0d%0a", "%0a/", ".%09", "%0a/x"] {
        let response = client.get(gateway.url(&format!("/admin{end}"))).send().await.unwrap();
        assert_eq!(response.status(), 401, "{end}");
    }
    assert_eq!(service.received(), "");
    assert_eq!(client.get(gateway.url("/open%0a")).send().await.unwrap().status(), 200);
}

/// RFC 9110 §7.8: a list, on one line or several.
#[tokio::test]
async fn a_websocket_is_opened_though_the_client_names_other_protocols_too() {
    let switch = |message: &Message| {
        assert_eq!((message.all("upgrade"), message.all("http2-settings")), (vec!["websocket"], vec![]));
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
          sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
            .to_vec()
    };
    let stage = Stage::before(Recorder::answering(switch).await, "");
    for lines in [
        "upgrade: websocket, h2c\r\nhttp2-settings: AAMAAABkAAQ\r\n",
        "upgrade: h2c,WebSocket\r\n",
        "upgrade: websocket\r\nupgrade: websocket\r\n",
        "upgrade: foo\r\nupgrade: websocket\r\n",
    ] {
        let mut client = raw(&stage.gateway, "http/1.1").await;
        let text = format!(
            "GET /x HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\nconnection: upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n",
            stage.token.secret
        );
        client.write_all(text.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        client.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 101", "{lines}");
    }
}

/// Each option is a header to take out; thousands of them would cost more than the rest of a request.
#[tokio::test]
async fn more_connection_options_than_a_message_has_headers_are_refused() {
    let stage = Stage::new("").await;
    let gone = "x-gone: 1\r\n".to_owned();
    let message =
        stage.passed("GET /x HTTP/1.1\r\nhost: a", &format!("connection: {}x-gone\r\n{gone}", "b,".repeat(98))).await;
    assert!(message.all("x-gone").is_empty(), "{}", message.head);
    let line = format!("connection: {}x-gone\r\n", "b,".repeat(50));
    for many in [format!("connection: {}x-gone\r\n", "b,".repeat(10_000)), line.repeat(2)] {
        let answer = stage.send("GET /x HTTP/1.1\r\nhost: a", &many).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("Connection options"), "{answer}");
    }
}

/// Over HTTP/2 a path may hold whatever is UTF-8.
#[tokio::test]
async fn what_a_path_hides_is_escaped_in_the_log() {
    let stage = Stage::new("").await;
    for path in ["/\u{9b}31m", "/\u{202e}gnp", "/\u{2028}forged", "/\u{200b}\u{feff}"] {
        assert_eq!(stage.http2(path, &[]).await, 400, "{path:?}");
    }
    stage.gateway.access("/\u{200b}\u{feff}", 1).await;
    let output = stage.gateway.output();
    let is_hidden = |it: char| (it.is_control() && it != '\n') || "\u{202e}\u{2028}\u{200b}\u{feff}".contains(it);
    assert_eq!(output.chars().find(|it| is_hidden(*it)), None, "{output:?}");
}
