//! hyper behind the gate: it sees the messages that the strict reader sees, and never has to refuse anything by itself.

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::gate::{Gate, Timeouts};
use super::super::head::HeadLimits;
use super::super::signals::Signals;
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
    /// Stand-ins for refused ones.
    refused: usize,
}

async fn serve(pieces: &[&[u8]], limits: HeadLimits) -> (Seen, String) {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let signals = Arc::new(Signals::default());
    let patience = Timeouts { head: Duration::from_secs(10), write: Duration::from_secs(10) };
    let gate = Gate::http1(server, limits, patience, signals.clone());
    let service = service_fn(|request: Request<Incoming>| {
        let (seen, refused, signals) = (seen.clone(), signals.fault(&request).is_some(), signals.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = tokio::time::timeout(Duration::from_secs(5), body.collect()).await;
            let mut seen = seen.lock().unwrap();
            match body {
                _ if refused => seen.refused += 1,
                Ok(Ok(body)) => {
                    seen.whole.push((format!("{} {}", head.method, head.uri), body.to_bytes().to_vec()));
                }
                Ok(Err(_)) | Err(_) => seen.broken += 1,
            }
            // As the gateway does: no tunnel for anybody who asks for one like this.
            let status = if head.method == http::Method::CONNECT { 405 } else { 200 };
            let answer = Response::builder().status(status).header("x-from", "handler");
            signals.exchange_over();
            Ok::<_, Infallible>(answer.body(Full::new(Bytes::new())).unwrap())
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(60));
    let connection = builder.serve_connection(TokioIo::new(gate), service);
    let talk = async {
        for piece in pieces {
            // The gateway may have closed already.
            let _ = client.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    let (_, answer) = tokio::join!(async { connection.await.is_ok() }, talk);
    (Arc::try_unwrap(seen).unwrap().into_inner().unwrap(), answer)
}

/// What the strict reader sees, as far as hyper reads: after an HTTP/1.0 request it closes.
fn expected(passed: &[u8]) -> Vec<Message> {
    let mut messages = read_all(passed, Quirks::NONE);
    if let Some(last) = messages.iter().position(|message| message.first_line.ends_with("1.0")) {
        messages.truncate(last + 1);
    }
    messages
}

/// Method and target as hyper spells them: a missing path is `/`.
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
    // Time stands still while anything moves; deadlines pass at once when nothing does.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (seen, answer) = runtime.block_on(serve(pieces, LIMITS));
    let (passed, end) = judge(&[bytes], LIMITS);
    let expected = expected(&passed);
    let whole: Vec<_> = expected.iter().filter(|it| it.whole).map(|it| (asked(it), it.body.clone())).collect();
    prop_assert_eq!(&seen.whole, &whole, "{}", answer);
    let answers = answer.matches("HTTP/1.").count() - answer.matches("HTTP/1.1 100 Continue").count();
    prop_assert_eq!(answers, answer.matches("x-from: handler").count(), "an answer of hyper's own: {}", answer);
    let closed = expected.len() < read_all(&passed, Quirks::NONE).len()
        || expected.last().is_some_and(|last| last.first_line.ends_with("1.0") || !last.whole);
    let refused = !closed && matches!(end, End::Refused(_) | End::Open(1..));
    prop_assert_eq!(seen.refused, usize::from(refused), "{:?}: {}", end, answer);
    Ok(whole.len())
}

#[test]
fn hyper_sees_what_the_strict_reader_sees() {
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
fn hyper_accepts_every_accepted_character() {
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
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let (seen, answer) = runtime.block_on(serve(&[&head], LIMITS));
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
fn hyper_accepts_the_longest_accepted_head() {
    let limits = HeadLimits { bytes: 200_000, lines: 100, target: usize::from(u16::MAX) - 1 };
    let target = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "t".repeat(limits.target - 1));
    let lines = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(limits.lines - 1));
    let value = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "v".repeat(190_000));
    let name = format!("GET / HTTP/1.1\r\nhost: a\r\n{}: y\r\n\r\n", "n".repeat(1024));
    let method = format!("{} / HTTP/1.1\r\nhost: a\r\n\r\n", "M".repeat(32));
    for head in [target, lines, value, name, method] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (seen, answer) = runtime.block_on(serve(&[head.as_bytes()], limits));
        assert_eq!((seen.whole.len(), seen.refused), (1, 0), "{}…: {answer}", &head[..40]);
    }
}
