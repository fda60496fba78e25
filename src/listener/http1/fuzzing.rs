//! What the fuzz targets call (`fuzz/targets/`).

use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};

use crate::body::{Body, IncomingBody};
use crate::listener::head::{HeadLimits, RequestFault};
use crate::listener::interim::Interim;
use crate::listener::{Handler, Peer};

use super::harness::connect;
use super::part::{Part, ReadFault};
use super::reader::Reader;

const LIMITS: HeadLimits = HeadLimits { bytes: 1_000, lines: 20, target: 300 };

/// Reads a client's bytes at once and in pieces of `cut` bytes.
///
/// # Panics
/// When the two differ.
pub fn read(bytes: &[u8], cut: u8) {
    let whole = read_pieces(std::iter::once(bytes));
    let pieces = read_pieces(bytes.chunks(usize::from(cut).max(1)));
    assert_eq!(whole, pieces);
}

/// What the reader sees: heads and trailers as text, bodies, and whether it refuses the rest.
fn read_pieces<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, bool) {
    let (mut reader, mut held, mut seen) = (Reader::new(LIMITS, false), BytesMut::new(), Vec::new());
    let mut body = Vec::new();
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            match reader.next(&mut held) {
                Ok(Some(Part::Head(request, length, asks))) => {
                    seen.push(format!("{body:?}"));
                    body.clear();
                    seen.push(format!("{request:?} {length:?} {asks:?}"));
                }
                Ok(Some(Part::Data(data))) => body.extend_from_slice(&data),
                Ok(Some(Part::End(trailers))) => seen.push(format!("{trailers:?}")),
                Ok(None) => break,
                // An overlong head may be refused for another reason when it comes in pieces.
                Err(ReadFault::Request(_) | ReadFault::Body) => {
                    seen.push(format!("{body:?}"));
                    return (seen, true);
                }
            }
        }
    }
    seen.push(format!("{body:?}"));
    (seen, false)
}

/// Reads the body of each request, and answers with what it has read.
#[derive(Default)]
struct Echo {
    answers: AtomicUsize,
}

impl Handler for Echo {
    type Body = Body;

    async fn handle(
        self: &Arc<Self>,
        request: Box<Request<IncomingBody>>,
        _: &Arc<Peer>,
        _: Option<Interim>,
    ) -> Response<Body> {
        let edits = Arc::default();
        let body = Body::relay(request.into_body(), Some(Duration::from_secs(5)), 1 << 20, |_, _| {}, &edits);
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        self.answers.fetch_add(1, Ordering::Relaxed);
        Response::new(Body::Full(body))
    }

    fn refuse(self: &Arc<Self>, _: RequestFault, _: &Arc<Peer>) -> Response<Body> {
        self.answers.fetch_add(1, Ordering::Relaxed);
        Response::new(Body::Empty)
    }
}

/// A client that sends everything in pieces, and leaves.
struct Client {
    left: Vec<u8>,
    cut: usize,
    received: Vec<u8>,
}

impl AsyncRead for Client {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let length = self.left.len().min(self.cut).min(buf.remaining());
        buf.put_slice(&self.left[..length]);
        self.left.drain(..length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let length = bytes.len().min(self.cut);
        self.received.extend_from_slice(&bytes[..length]);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Serves a client that sends these bytes in pieces of `cut` bytes, and leaves.
///
/// # Panics
/// When the connection doesn't end, or there are more answers than the reader has seen requests.
pub fn serve(bytes: &[u8], cut: u8) {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));
    let _entered = RUNTIME.enter();
    let handler = Arc::<Echo>::default();
    let client = Client { left: bytes.to_vec(), cut: usize::from(cut).max(1), received: Vec::new() };
    let mut connection = pin!(connect(&handler, LIMITS, client));
    let mut cx = Context::from_waker(Waker::noop());
    // The client never lets it wait: it ends within a few turns.
    let ended = (0..bytes.len() + 100).any(|_| connection.as_mut().poll(&mut cx).is_ready());
    assert!(ended, "the connection waits for ever");
    let (seen, is_refused) = read_pieces(std::iter::once(bytes));
    let requests = seen.iter().filter(|text| text.starts_with("Request")).count();
    assert!(handler.answers.load(Ordering::Relaxed) <= requests + usize::from(is_refused) + 1);
}
