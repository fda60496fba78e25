//! Raw frames of HTTP/2 (RFC 9113 §8): what no request of HTTP/1.1 could be reaches nobody, as a request or as part of one.

use super::{EVERYTHING, Stage};
use crate::support::frames::{END_STREAM, Frames, field, kind, request};
use crate::support::recorder::Recorder;

/// The fields of a good request, in their order.
fn fields(stage: &Stage) -> Vec<(String, String)> {
    let auth = format!("Bearer {}", stage.token.secret);
    [(":method", "POST"), (":scheme", "https"), (":path", "/x"), (":authority", "localhost"), ("authorization", &auth)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// Sends a request of these fields and this body, and returns the gateway's reaction.
async fn ask(stage: &Stage, fields: &[(String, String)], body: Option<&str>) -> Outcome {
    let mut frames = Frames::connect(&stage.gateway).await;
    let block: Vec<u8> = fields.iter().flat_map(|(name, value)| field(name.as_bytes(), value.as_bytes())).collect();
    frames.headers(1, &block, body.is_none()).await;
    if let Some(body) = body {
        frames.send(kind::DATA, 0x1, 1, body.as_bytes()).await;
    }
    loop {
        let Some(frame) = frames.next().await else { return Outcome::Closed };
        match frame.kind {
            kind::HEADERS if frame.stream == 1 => return Outcome::Answered(frame.status()),
            kind::RST_STREAM if frame.stream == 1 => return Outcome::Reset,
            kind::GOAWAY => return Outcome::Closed,
            _ => {}
        }
    }
}

/// Fields to replace or to add.
type Changes = &'static [(&'static str, &'static str)];

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Answered(u16),
    Reset,
    Closed,
}

/// Requests that are changed in one thing each: none is answered well, and not a byte of any arrives.
async fn all_malformed(cases: &[(&str, Changes, &str)]) {
    let stage = Stage::new().await;
    assert_eq!(ask(&stage, &fields(&stage), Some("hello")).await, Outcome::Answered(200), "the unchanged one");
    let good = stage.upstream.received();
    for (what, changes, body) in cases {
        let mut fields = fields(&stage);
        for (name, value) in *changes {
            let known = fields.iter_mut().find(|(this, _)| name.starts_with(':') && this == name);
            match known {
                Some((_, old)) => *old = (*value).to_owned(),
                None => fields.push(((*name).to_owned(), (*value).to_owned())),
            }
        }
        let outcome = ask(&stage, &fields, Some(body)).await;
        assert!(
            matches!(outcome, Outcome::Reset | Outcome::Closed | Outcome::Answered(400 | 405)),
            "{what}: {outcome:?}"
        );
        assert_eq!(stage.upstream.received(), good, "{what}");
    }
}

#[tokio::test]
async fn rfc9113_8_2_1_names_and_values_that_would_be_lines_of_http1_are_malformed() {
    all_malformed(&[
        ("an upper-case name", &[("X-Upper", "1")], "hello"),
        ("a blank in a name", &[("x y", "1")], "hello"),
        ("a colon in a name", &[("x:y", "1")], "hello"),
        ("a line in a name", &[("x: y\r\nhost: evil\r\nz", "1")], "hello"),
        ("an empty name", &[("", "1")], "hello"),
        ("a line in a value", &[("x", "y\r\ntransfer-encoding: chunked")], "hello"),
        ("a request in a value", &[("x", "y\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n")], "hello"),
        ("a line feed in a value", &[("x", "y\nz")], "hello"),
        ("a carriage return in a value", &[("x", "y\rz")], "hello"),
        ("a NUL in a value", &[("x", "y\0z")], "hello"),
        ("a blank before a value", &[("x", " y")], "hello"),
        ("a tab behind a value", &[("x", "y\t")], "hello"),
    ])
    .await;
}

#[tokio::test]
async fn rfc9113_8_2_2_connection_specific_fields_are_malformed_h2_te() {
    all_malformed(&[
        ("chunks", &[("transfer-encoding", "chunked")], "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("chunks, written otherwise", &[("transfer-encoding", "\tchunked")], "0\r\n\r\n"),
        ("no coding", &[("transfer-encoding", "identity")], "hello"),
        ("connection", &[("connection", "close")], "hello"),
        ("keep-alive", &[("keep-alive", "timeout=5")], "hello"),
        ("proxy-connection", &[("proxy-connection", "keep-alive")], "hello"),
        ("upgrade", &[("upgrade", "h2c")], "hello"),
        ("te", &[("te", "gzip")], "hello"),
    ])
    .await;
}

#[tokio::test]
async fn rfc9113_8_3_1_pseudo_headers_are_valid_and_unique() {
    all_malformed(&[
        ("a request line in the method", &[(":method", "GET / HTTP/1.1\r\nx: y")], "hello"),
        ("a blank in the method", &[(":method", "GET /smuggled HTTP/1.1")], "hello"),
        ("no method", &[(":method", "")], "hello"),
        ("no path", &[(":path", "")], "hello"),
        ("a path without its slash", &[(":path", "x")], "hello"),
        ("a line in the path", &[(":path", "/x HTTP/1.1\r\nhost: evil\r\n\r\n")], "hello"),
        ("a blank in the path", &[(":path", "/x y")], "hello"),
        ("an absolute path", &[(":path", "https://evil/x")], "hello"),
        ("an asterisk", &[(":path", "*")], "hello"),
        ("a line in the scheme", &[(":scheme", "https\r\nx: y")], "hello"),
        ("a whole target in the scheme", &[(":scheme", "https://evil/?")], "hello"),
        ("a line in the authority", &[(":authority", "a\r\nx: y")], "hello"),
        ("a user in the authority", &[(":authority", "u@a")], "hello"),
        ("a path in the authority", &[(":authority", "a/b")], "hello"),
        ("two ports", &[(":authority", "a:80:80")], "hello"),
        ("another host", &[("host", "evil")], "hello"),
        ("two hosts", &[("host", "localhost"), ("host", "localhost")], "hello"),
        ("a pseudo-header that is none", &[(":evil", "1")], "hello"),
        ("an answer's pseudo-header", &[(":status", "200")], "hello"),
        ("CONNECT", &[(":method", "CONNECT")], "hello"),
        ("TRACE", &[(":method", "TRACE")], "hello"),
    ])
    .await;
    let stage = Stage::new().await;
    let mut twice = fields(&stage);
    twice.insert(1, (":method".into(), "GET".into()));
    let mut late = fields(&stage);
    late.rotate_left(1);
    let without: Vec<_> = fields(&stage).into_iter().filter(|(name, _)| name != ":authority").collect();
    for fields in [twice, late, without] {
        let outcome = ask(&stage, &fields, Some("hello")).await;
        assert!(
            matches!(outcome, Outcome::Reset | Outcome::Closed | Outcome::Answered(400)),
            "{fields:?}: {outcome:?}"
        );
    }
    assert_eq!(stage.upstream.received(), "");
}

/// The upstream may have heard of the request when its body turns out to be of another length, but never a whole one.
#[tokio::test]
async fn rfc9113_8_1_1_a_content_length_unlike_the_body_is_malformed_h2_cl() {
    let inner = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    for (length, body) in [
        ("0", inner),
        ("5", inner),
        ("500", inner),
        ("+5", "hello"),
        ("5 ", "hello"),
        ("5,5", "hello"),
        ("", "hello"),
        ("1e1", "hello"),
        ("99999999999999999999", "hello"),
    ] {
        let stage = Stage::new().await;
        let mut fields = fields(&stage);
        fields.push(("content-length".into(), length.into()));
        let outcome = ask(&stage, &fields, Some(body)).await;
        // A request that has no body, by its length, is whole with its head, and may have its answer before the body comes.
        assert!(length == "0" || !matches!(outcome, Outcome::Answered(200)), "{length}: {outcome:?}");
        // At most the beginning of one message arrived.
        let received = stage.upstream.received();
        assert_eq!(
            received.matches(" HTTP/1.1\r\n").count() - received.matches("smuggled").count(),
            usize::from(!received.is_empty())
        );
        if received.contains("smuggled") {
            assert!(
                received.contains(&format!("content-length: {length}\r\n")) && length == "500",
                "{length}: {received}"
            );
        }
    }
    let stage = Stage::new().await;
    let mut twice = fields(&stage);
    twice.extend([("content-length".to_owned(), "5".to_owned()), ("content-length".to_owned(), "5".to_owned())]);
    assert_ne!(ask(&stage, &twice, Some("hello")).await, Outcome::Answered(200));
    assert_eq!(stage.upstream.received(), "");
}

#[tokio::test]
async fn rfc9113_8_2_3_cookies_are_one_line_for_the_upstream() {
    let stage = Stage::new().await;
    let mut fields = fields(&stage);
    fields.extend(["a=1", "b=2", "c=3"].map(|crumb| ("cookie".to_owned(), crumb.to_owned())));
    assert_eq!(ask(&stage, &fields, None).await, Outcome::Answered(200));
    assert_eq!(stage.upstream.only().all("cookie"), ["a=1; b=2; c=3"]);
}

/// An HTTP/1.1 upstream can read a request of HTTP/2 in one way only.
#[tokio::test]
async fn rfc9113_8_a_valid_request_is_forwarded_as_http1() {
    let stage = Stage::before(Recorder::start().await, EVERYTHING);
    let mut fields = fields(&stage);
    fields.extend(
        [("host", "localhost"), ("te", "trailers"), ("expect", "y 100-continue"), ("x_my_own", "1"), ("via", "2.0 x")]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    assert_eq!(ask(&stage, &fields, Some("0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n")).await, Outcome::Answered(200));
    let message = stage.upstream.only();
    assert_eq!((message.line(), message.all("host")), ("POST /x HTTP/1.1", vec!["localhost"]));
    assert_eq!((message.all("via"), message.all("expect")), (vec!["2.0 x, 2.0 callgate"], vec![]));
    assert!(message.body.contains("GET /smuggled"), "it is in the body: {message:?}");
}

#[tokio::test]
async fn rfc8441_3_a_protocol_that_is_not_a_websocket_is_refused() {
    let stage = Stage::new().await;
    for protocol in ["websocket2", "connect-udp", "h2c", ""] {
        let mut fields = fields(&stage);
        fields[0].1 = "CONNECT".into();
        fields.insert(4, (":protocol".into(), protocol.into()));
        let outcome = ask(&stage, &fields, None).await;
        assert!(!matches!(outcome, Outcome::Answered(200..300)), "{protocol}: {outcome:?}");
    }
    assert_eq!(stage.upstream.received(), "");
}

/// Reads until a stream has been answered in full; the status, if it is the first, and the codes of all resets of stream 1 on the way.
async fn answered(frames: &mut Frames, stream: u32) -> (u16, Vec<u32>) {
    let (mut status, mut resets) = (0, Vec::new());
    loop {
        let frame = frames.next().await.expect("the connection to stay");
        match frame.kind {
            // Those of later answers may be told by the table of fields.
            kind::HEADERS if stream == 1 => status = frame.status(),
            kind::RST_STREAM if frame.stream == 1 => {
                resets.push(u32::from_be_bytes(frame.payload[..].try_into().unwrap()));
            }
            _ => {}
        }
        if frame.stream == stream && matches!(frame.kind, kind::HEADERS | kind::DATA) && frame.flags & END_STREAM != 0 {
            return (status, resets);
        }
    }
}

/// A reset behind the answer, with no error, is allowed; but some clients whose body is still on its way drop the answer for it.
#[tokio::test]
async fn rfc9113_8_1_a_request_that_is_answered_early_may_finish() {
    let routes = "routes: [{ path: /small, upstream: up, max_body: 10 }, { path: \"/{*rest}\", upstream: up }]";
    // The upstream answers before the body has come.
    let early = Recorder::heads(b"HTTP/1.1 422 No\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno").await;
    let stage = Stage::before(early, routes);
    let length = |length: &str| field(b"content-length", length.as_bytes());
    for (path, token, status) in
        [("/x", None, 401), ("/small", Some(&stage.token), 413), ("/early", Some(&stage.token), 422)]
    {
        let mut frames = Frames::connect(&stage.gateway).await;
        frames.headers(1, &[request("POST", path, token), length("20")].concat(), false).await;
        assert_eq!(answered(&mut frames, 1).await, (status, vec![]), "{path}");
        // A frame after the answer would come before the answer to the next request.
        frames.headers(3, &request("GET", "/x", None), true).await;
        assert_eq!(answered(&mut frames, 3).await, (0, vec![]), "{path}");
        frames.send(kind::DATA, END_STREAM, 1, b"twenty bytes of body").await;
        frames.headers(5, &request("GET", "/x", None), true).await;
        assert_eq!(answered(&mut frames, 5).await, (0, vec![]), "{path}");
    }
    // It is not waited for for ever.
    let mut frames = Frames::connect(&stage.gateway).await;
    frames.headers(1, &request("POST", "/x", None), false).await;
    assert_eq!(answered(&mut frames, 1).await, (401, vec![]));
    let reset = loop {
        let frame = frames.next().await.expect("a reset");
        if frame.kind == kind::RST_STREAM {
            break frame.payload;
        }
    };
    assert_eq!(reset, [0; 4], "NO_ERROR");
}
