//! The connection loop over many byte streams: it hands over the messages that the reader sees, and so does hyper where everything is
//! good. And its deadlines, with time that stands still.

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::body::{Body, BodyError, IncomingBody};
use crate::listener::head::{HeadLimits, RequestFault};
use crate::listener::http1::harness::connect;
use crate::listener::interim::Interim;
use crate::listener::{Handler, Peer};

use super::readers::{Message, Quirks, read_all};
use super::streams::{Cuts, cuts, stream};
use super::{End, LIMITS, judge, many};

/// What a handler sees of one connection.
#[derive(Debug, Default)]
struct Seen {
    /// Method, target and body of each request whose body came whole.
    whole: Vec<(String, Vec<u8>)>,
    /// Requests whose body did not.
    broken: usize,
    /// What was no request.
    refused: usize,
}

impl Seen {
    fn note<E>(&mut self, head: &http::request::Parts, body: Result<Bytes, E>) {
        match body {
            Ok(body) => self.whole.push((format!("{} {}", head.method, head.uri), body.to_vec())),
            Err(_) => self.broken += 1,
        }
    }
}

/// Reads each request to its end.
#[derive(Default)]
struct Reads {
    seen: Mutex<Seen>,
}

impl Handler for Reads {
    type Body = Body;

    async fn handle(
        self: &Arc<Self>,
        request: Box<Request<IncomingBody>>,
        _: &Arc<Peer>,
        _: Option<Interim>,
    ) -> Response<Body> {
        let (head, incoming) = request.into_parts();
        let edits = Arc::default();
        let body = Body::relay(incoming, Some(Duration::from_secs(5)), u64::MAX, |_, _| {}, &edits).collect().await;
        self.seen.lock().unwrap().note(&head, body.map(http_body_util::Collected::to_bytes));
        // As the gateway does: no tunnel for anybody who asks for one like this.
        let status = if head.method == http::Method::CONNECT { 405 } else { 200 };
        Response::builder().status(status).header("x-from", "handler").body(Body::Empty).unwrap()
    }

    fn refuse(self: &Arc<Self>, fault: RequestFault, _: &Arc<Peer>) -> Response<Body> {
        self.seen.lock().unwrap().refused += 1;
        let reason = Body::Full(Bytes::from(format!("{fault:?}")));
        Response::builder().status(400).header("x-from", "handler").body(reason).unwrap()
    }
}

async fn talk(mut client: DuplexStream, pieces: &[&[u8]]) -> String {
    for piece in pieces {
        // The gateway may have closed already.
        let _ = client.write_all(piece).await;
        tokio::task::yield_now().await;
    }
    let mut answer = Vec::new();
    // An idle connection stays open.
    let _ = tokio::time::timeout(Duration::from_secs(30), client.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}

async fn serve(pieces: &[&[u8]], limits: HeadLimits) -> (Seen, String) {
    let handler = Arc::<Reads>::default();
    let (client, server) = tokio::io::duplex(1 << 20);
    let connection = connect(&handler, limits, server);
    let connection = tokio::spawn(connection);
    let answer = talk(client, pieces).await;
    let _ = connection.await.unwrap();
    (Arc::try_unwrap(handler).ok().unwrap().seen.into_inner().unwrap(), answer)
}

/// The same by hyper, which knows no limits.
async fn serve_by_hyper(bytes: &[u8]) -> Seen {
    let (client, server) = tokio::io::duplex(1 << 20);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let seen = seen.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = tokio::time::timeout(Duration::from_secs(5), body.collect()).await;
            seen.lock()
                .unwrap()
                .note(&head, body.map_err(drop).and_then(|body| body.map_err(drop)).map(|body| body.to_bytes()));
            let status = if head.method == http::Method::CONNECT { 405 } else { 200 };
            Ok::<_, Infallible>(Response::builder().status(status).body(Full::new(Bytes::new())).unwrap())
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(60));
    let connection = builder.serve_connection(TokioIo::new(server), service);
    let pieces = [bytes];
    let _ = tokio::join!(async { connection.await.is_ok() }, talk(client, &pieces));
    Arc::try_unwrap(seen).unwrap().into_inner().unwrap()
}

/// Time stands still while anything moves; deadlines pass at once when nothing does.
fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
}

/// What the strict reader sees, as far as servers read: after an HTTP/1.0 request they close.
fn expected(passed: &[u8]) -> Vec<Message> {
    let mut messages = read_all(passed, Quirks::NONE);
    if let Some(last) = messages.iter().position(|message| message.first_line.ends_with("1.0")) {
        messages.truncate(last + 1);
    }
    messages
}

/// Method and target as `http` spells them: a missing path is `/`.
fn asked(message: &Message) -> String {
    let line = message.first_line.rsplit_once(' ').unwrap().0;
    let target = line.split_once(' ').unwrap().1;
    let Some(rest) = target.strip_prefix("http://").or_else(|| target.strip_prefix("https://")) else {
        return line.to_owned();
    };
    let path = &rest[rest.find(['/', '?']).unwrap_or(rest.len())..];
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{}{slash}{path}", &line[..line.len() - path.len()])
}

fn agree(bytes: &[u8], pieces: &[&[u8]]) -> Result<usize, TestCaseError> {
    let (seen, answer) = run(serve(pieces, LIMITS));
    let (passed, end) = judge(&[bytes], LIMITS);
    let expected = expected(&passed);
    let whole: Vec<_> = expected.iter().filter(|it| it.whole).map(|it| (asked(it), it.body.clone())).collect();
    prop_assert_eq!(&seen.whole, &whole, "{}", answer);
    prop_assert_eq!(&run(serve_by_hyper(&passed)).whole, &whole, "by hyper");
    let closed = expected.len() < read_all(&passed, Quirks::NONE).len()
        || expected.last().is_some_and(|last| last.first_line.ends_with("1.0") || !last.whole);
    let refused = !closed && matches!(end, End::Refused(_) | End::Open(1..));
    prop_assert_eq!(seen.refused, usize::from(refused), "{:?}: {}", end, answer);
    Ok(whole.len())
}

#[test]
fn connection_and_hyper_see_what_the_reader_sees() {
    let messages = Cell::new(0);
    many(1_500)
        .run(&(stream(), cuts()), |(bytes, cuts)| {
            messages.set(messages.get() + agree(&bytes, &Cuts::apply(&cuts, &bytes))?);
            Ok(())
        })
        .unwrap();
    assert!(messages.get() > 1_000, "{} messages", messages.get());
}

#[test]
fn every_accepted_character_makes_a_request() {
    for byte in 0..=255_u8 {
        for head in [
            [b"GET /", &[byte][..], b" HTTP/1.1\r\nhost: a\r\n\r\n"].concat(),
            [b"GET /?", &[byte][..], b" HTTP/1.1\r\nhost: a\r\n\r\n"].concat(),
            [b"G", &[byte][..], b" / HTTP/1.1\r\nhost: a\r\n\r\n"].concat(),
            [b"GET / HTTP/1.1\r\nhost: a\r\nx", &[byte][..], b": y\r\n\r\n"].concat(),
            [b"GET / HTTP/1.1\r\nhost: a\r\nx: ", &[byte][..], b"\r\n\r\n"].concat(),
            [b"GET / HTTP/1.1\r\nhost: a", &[byte][..], b"\r\n\r\n"].concat(),
            [b"GET http://a", &[byte][..], b" HTTP/1.1\r\nhost: a\r\n\r\n"].concat(),
            [b"CONNECT a", &[byte][..], b" HTTP/1.1\r\nhost: a\r\n\r\n"].concat(),
        ] {
            let (seen, answer) = run(serve(&[&head], LIMITS));
            let (passed, end) = judge(&[&head], LIMITS);
            let whole = end == End::Open(0) && passed == head;
            let told = (seen.whole.len(), seen.refused, answer.matches("x-from: handler").count());
            assert_eq!(
                told,
                (usize::from(whole), usize::from(!whole), 1),
                "{:?}: {answer}",
                head.escape_ascii().to_string()
            );
        }
    }
}

#[test]
fn the_longest_accepted_head_makes_a_request() {
    let limits = HeadLimits { bytes: 200_000, lines: 100, target: usize::from(u16::MAX) - 1 };
    let target = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "t".repeat(limits.target - 1));
    let lines = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(limits.lines - 1));
    let value = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "v".repeat(190_000));
    let name = format!("GET / HTTP/1.1\r\nhost: a\r\n{}: y\r\n\r\n", "n".repeat(1024));
    let method = format!("{} / HTTP/1.1\r\nhost: a\r\n\r\n", "M".repeat(32));
    for head in [target, lines, value, name, method] {
        let (seen, answer) = run(serve(&[head.as_bytes()], limits));
        assert_eq!((seen.whole.len(), seen.refused), (1, 0), "{}…: {answer}", &head[..40]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_refused_as_too_slow_receives_the_reason() {
    let handler = Arc::<Reads>::default();
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let connection = connect(&handler, LIMITS, server);
    let connection = tokio::spawn(connection);
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400 ") && answer.ends_with(b"TooSlow"), "{}", answer.escape_ascii());
    client.write_all(b"host: too late").await.unwrap();
    // Closed with something unread, the socket would take the answer back.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!connection.is_finished());
    drop(client);
    tokio::time::timeout(Duration::from_millis(100), connection).await.unwrap().unwrap().unwrap();
}

/// Answers at once, and reads the body afterwards, in another task.
struct AnswersFirst {
    bodies: tokio::sync::mpsc::UnboundedSender<Result<Bytes, BodyError>>,
}

impl Handler for AnswersFirst {
    type Body = Body;

    async fn handle(
        self: &Arc<Self>,
        request: Box<Request<IncomingBody>>,
        _: &Arc<Peer>,
        _: Option<Interim>,
    ) -> Response<Body> {
        let bodies = self.bodies.clone();
        let body = Body::relay(request.into_body(), None, u64::MAX, |_, _| {}, &Arc::default());
        tokio::spawn(async move { bodies.send(body.collect().await.map(http_body_util::Collected::to_bytes)) });
        Response::new(Body::Full(Bytes::from_static(b"early")))
    }

    fn refuse(self: &Arc<Self>, _: RequestFault, _: &Arc<Peer>) -> Response<Body> {
        Response::builder().status(400).body(Body::Empty).unwrap()
    }
}

/// What a client receives that sends these pieces, one a second, to a handler that answers first; and the bodies that are read.
async fn answered_first(pieces: &[&str]) -> (String, Vec<Option<Bytes>>) {
    let (sender, mut bodies) = tokio::sync::mpsc::unbounded_channel();
    let handler = Arc::new(AnswersFirst { bodies: sender });
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let connection = tokio::spawn(connect(&handler, LIMITS, server));
    drop(handler);
    for piece in pieces {
        let _ = client.write_all(piece.as_bytes()).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(30), client.read_to_end(&mut answer)).await;
    drop(client);
    let _ = connection.await.unwrap();
    let mut read = Vec::new();
    while let Some(body) = bodies.recv().await {
        read.push(body.ok());
    }
    (String::from_utf8(answer).unwrap(), read)
}

#[tokio::test(start_paused = true)]
async fn a_body_outlives_the_last_answer() {
    for last in ["HTTP/1.1\r\nhost: a\r\nconnection: close", "HTTP/1.0"] {
        let head = format!("POST / {last}\r\ncontent-length: 10\r\n\r\nhello");
        let (answer, bodies) = answered_first(&[&head, "world", "GET / HTTP/1.0\r\n\r\n"]).await;
        assert!(answer.contains("connection: close\r\n") && answer.ends_with("early"), "{answer}");
        assert_eq!(bodies, [Some(Bytes::from("helloworld"))], "{last}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_for_a_body_once_there_is_an_answer() {
    let head = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 10\r\n\r\n";
    let (answer, bodies) = answered_first(&[head, "GET / HTTP/1.1\r\nhost: a\r\n\r\n"]).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close\r\n"), "{answer}");
    assert!(!answer.contains(" 100 ") && answer.ends_with("early"), "{answer}");
    assert_eq!(bodies, [None]);
    // A client that has begun to send it waits for nothing.
    let (answer, bodies) =
        answered_first(&[&format!("{head}hello"), "world", "GET / HTTP/1.1\r\nhost: a\r\n\r\n"]).await;
    assert!(!answer.contains(" 100 ") && answer.matches("early").count() == 2, "{answer}");
    assert_eq!(bodies, [Some(Bytes::from("helloworld")), Some(Bytes::new())]);
}

#[tokio::test(start_paused = true)]
async fn only_who_may_expect_it_is_told_to_go_on() {
    for (head, is_told) in [
        ("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-Continue\r\n", true),
        ("POST / HTTP/1.1\r\nhost: a\r\nexpect: 200-ok\r\n", false),
        ("POST / HTTP/1.0\r\nexpect: 100-continue\r\n", false),
    ] {
        let handler = Arc::<Reads>::default();
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let connection = tokio::spawn(connect(&handler, LIMITS, server));
        client.write_all(format!("{head}content-length: 2\r\n\r\n").as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.write_all(b"hi").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        let _ = connection.await.unwrap();
        assert_eq!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 "), is_told, "{head}: {answer}");
        assert_eq!(answer.contains(" 100 "), is_told, "{head}: {answer}");
        assert_eq!(handler.seen.lock().unwrap().whole[0].1, b"hi", "{head}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_for_a_head_begins_with_it_and_not_with_an_empty_line() {
    let handler = Arc::<Reads>::default();
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let _connection = tokio::spawn(connect(&handler, LIMITS, server));
    for piece in ["\r", "\n", "GET / HTTP/1.1\r\n", "host: a\r\nconnection: close\r\n\r\n"] {
        client.write_all(piece.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_rest_that_its_taker_leaves_is_not_waited_for() {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    struct Leaves;
    impl Handler for Leaves {
        type Body = Body;

        async fn handle(
            self: &Arc<Self>,
            request: Box<Request<IncomingBody>>,
            _: &Arc<Peer>,
            _: Option<Interim>,
        ) -> Response<Body> {
            let body =
                Body::relay(request.into_body(), Some(Duration::from_secs(5)), u64::MAX, |_, _| {}, &Arc::default());
            tokio::spawn(body.collect());
            Response::new(Body::Empty)
        }

        fn refuse(self: &Arc<Self>, _: RequestFault, _: &Arc<Peer>) -> Response<Body> {
            Response::new(Body::Empty)
        }
    }
    let began = tokio::time::Instant::now();
    let connection = tokio::spawn(connect(&Arc::new(Leaves), LIMITS, server));
    client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhello").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    let _ = connection.await.unwrap();
    // 5 s until it leaves, 10 for the rest, and one for the client to read what there is.
    assert!((15..17).contains(&began.elapsed().as_secs()), "{:?}: {answer}", began.elapsed());
}
