//! Bodies as they arrive: from clients on HTTP/1.1 and HTTP/2, and from services.
//!
//! The rest of an HTTP/2 client's body that nobody reads to its end is discarded for a moment. Otherwise the stream is reset right behind the
//! answer, and although a client may not drop the answer for that (RFC 9113 §8.1), some do, as curl 7.88.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::oneshot;

use super::error::BodyError;
use super::pipe::PipeBody;
use super::service::ServiceBody;
use super::upgraded::UpgradedConnection;

/// Long enough for what a client sends right behind the head of its request.
const DISCARD_TIME: Duration = Duration::from_secs(2);
/// As much as a client may send before it hears of anything: the window of a stream.
const MAX_DISCARDED: usize = 256 << 10;

/// Asks the sender of a body for it (`Expect: 100-continue`).
pub(crate) type AskForBody = Box<dyn FnOnce() + Send + Sync>;

/// A body that arrives.
pub enum IncomingBody {
    /// None.
    Empty,
    /// An HTTP/1.1 client's that came with the head of its request.
    Whole(Bytes),
    /// An HTTP/1.1 client's.
    Pipe(PipeBody),
    /// No body, but the connection of an HTTP/1.1 client, once it has switched protocols; `None`: it was taken.
    Upgrade(Option<oneshot::Receiver<UpgradedConnection>>),
    /// A service's.
    Service(ServiceBody),
    /// On an HTTP/2 client's stream.
    Stream(StreamBody),
    /// No body, but what follows an HTTP/2 client's CONNECT once that is accepted; `None`: it was taken.
    Call(Option<CallHalves>),
}

/// The body of a request on HTTP/2. h2 sees to it that it is as long as it says.
pub struct StreamBody {
    /// Gone only when this is dropped.
    stream: Option<RecvStream>,
    data_over: bool,
    ask: Option<AskForBody>,
    /// Whether what is still on its way is taken in when this is dropped.
    lingers: bool,
}

/// Both ways of a stream that is to become a call.
pub struct CallHalves {
    /// From the client.
    pub receive: RecvStream,
    /// To the client, from when it was told that the call may begin; never, if it was told otherwise.
    pub send: oneshot::Receiver<SendStream<Bytes>>,
}

impl fmt::Debug for IncomingBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingBody").field("length", &self.size_hint()).finish_non_exhaustive()
    }
}

impl StreamBody {
    /// `ask` is done when the body is wanted and nothing of it is there (RFC 9110 §10.1.1).
    pub(crate) fn new(stream: RecvStream, ask: Option<AskForBody>) -> Self {
        Self { stream: Some(stream), data_over: false, ask, lingers: true }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        if !self.data_over {
            let Poll::Ready(data) = poll_data(stream, cx) else {
                if let Some(ask) = self.ask.take() {
                    ask();
                }
                return Poll::Pending;
            };
            self.ask = None;
            if let Some(data) = data {
                self.lingers &= data.is_ok();
                return Poll::Ready(Some(data.map(Frame::data)));
            }
            self.data_over = true;
        }
        let trailers = ready!(stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        let left = self.stream.take().filter(|stream| self.lingers && !self.data_over && !stream.is_end_stream());
        if let (Some(stream), Ok(runtime)) = (left, tokio::runtime::Handle::try_current()) {
            runtime.spawn(tokio::time::timeout(DISCARD_TIME, discard(stream)));
        }
    }
}

/// Reads to the end, if that is not far, and forgets it.
async fn discard(mut stream: RecvStream) {
    let mut left = MAX_DISCARDED;
    while let Some(Ok(data)) = poll_fn(|cx| poll_data(&mut stream, cx)).await {
        let Some(rest) = left.checked_sub(data.len()) else { return };
        left = rest;
    }
}

fn poll_data(stream: &mut RecvStream, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
    let polled = ready!(stream.poll_data(cx));
    if let Some(Ok(data)) = &polled {
        // Whoever takes the piece has room for it. This fails only where nobody sends any more.
        let _ = stream.flow_control().release_capacity(data.len());
    }
    Poll::Ready(polled)
}

impl IncomingBody {
    /// Has its stream reset as soon as it is left: its client waits for that to stop.
    pub(crate) fn stop_at_once(&mut self) {
        if let Self::Stream(body) = self {
            body.lingers = false;
        }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Whole(bytes) => {
                let piece = Some(std::mem::take(bytes)).filter(|piece| !piece.is_empty());
                Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
            }
            Self::Pipe(body) => body.poll_frame(cx),
            Self::Service(body) => Pin::new(body).poll_frame(cx),
            // A stream that its client has reset ends like this too: what came of the body is not the whole of it.
            Self::Stream(body) => body.poll_frame(cx).map_err(BodyError::Reset),
            Self::Empty | Self::Upgrade(_) | Self::Call(_) => Poll::Ready(None),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Pipe(body) => body.is_end_stream(),
            Self::Service(body) => body.is_end_stream(),
            Self::Stream(body) => body.stream.as_ref().is_none_or(RecvStream::is_end_stream),
            Self::Empty | Self::Upgrade(_) | Self::Call(_) => true,
        }
    }

    /// Whether all of it is there.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self, Self::Whole(_)) || self.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Pipe(body) => body.size_hint(),
            Self::Service(body) => body.size_hint(),
            // The header says it, which goes along.
            Self::Stream(_) => SizeHint::default(),
            Self::Empty | Self::Upgrade(_) | Self::Call(_) => SizeHint::with_exact(0),
        }
    }
}
