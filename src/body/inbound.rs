//! Bodies as they arrive: from hyper, or on a stream of an HTTP/2 client's.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use super::BodyError;

/// What is done when the sender of a body waits to be asked for it.
pub type Ask = Box<dyn FnOnce() + Send + Sync>;

/// A body that arrives.
pub enum Inbound {
    /// On a connection of hyper's.
    Hyper(Incoming),
    /// On a stream of an HTTP/2 client's.
    Stream(StreamBody),
    /// None, but what follows a CONNECT of an HTTP/2 client's once it is accepted; `None`: somebody has taken it.
    Call(Option<CallHalves>),
}

/// The body of a request on HTTP/2. h2 sees to it that it is as long as it says.
pub struct StreamBody {
    stream: RecvStream,
    data_over: bool,
    ask: Option<Ask>,
}

/// Both ways of a stream that is to become a call.
pub struct CallHalves {
    /// From the client.
    pub receive: RecvStream,
    /// To the client, from when it was told that the call may begin; never, if it was told otherwise.
    pub send: oneshot::Receiver<SendStream<Bytes>>,
}

impl From<Incoming> for Inbound {
    fn from(incoming: Incoming) -> Self {
        Self::Hyper(incoming)
    }
}

impl StreamBody {
    /// `ask` is done when the body is wanted and nothing of it is there (RFC 9110 §10.1.1).
    #[must_use]
    pub fn new(stream: RecvStream, ask: Option<Ask>) -> Self {
        Self { stream, data_over: false, ask }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_over {
            let Poll::Ready(data) = self.stream.poll_data(cx) else {
                if let Some(ask) = self.ask.take() {
                    ask();
                }
                return Poll::Pending;
            };
            self.ask = None;
            if let Some(data) = data {
                let data = data?;
                // Whoever takes the piece has room for it. This fails only where nobody sends any more.
                let _ = self.stream.flow_control().release_capacity(data.len());
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            self.data_over = true;
        }
        let trailers = ready!(self.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

impl Inbound {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Hyper(incoming) => Pin::new(incoming).poll_frame(cx).map_err(BodyError::Broken),
            // A stream that its client has reset ends like this too: what came of the body is not the whole of it.
            Self::Stream(body) => body.poll_frame(cx).map_err(BodyError::Reset),
            Self::Call(_) => Poll::Ready(None),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Self::Hyper(incoming) => incoming.is_end_stream(),
            Self::Stream(body) => body.stream.is_end_stream(),
            Self::Call(_) => true,
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Hyper(incoming) => incoming.size_hint(),
            // The header says it, which goes along.
            Self::Stream(_) => SizeHint::default(),
            Self::Call(_) => SizeHint::with_exact(0),
        }
    }
}
