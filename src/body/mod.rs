//! Bodies on their way through Callgate.

mod copy;
mod error;
mod incoming;
mod progress;
mod relay;

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use relay::Relay;

pub(crate) use copy::BodyCopy;
pub use error::{BodyError, BodyFault};
pub use incoming::{AskForBody, CallHalves, IncomingBody, StreamBody};
pub use progress::Progress;
pub(crate) use relay::BodyGuard;

/// A body that Callgate sends, either way.
pub enum Body {
    /// Nothing.
    Empty,
    /// One piece.
    Full(Bytes),
    /// Whatever arrives from the other side.
    Relay(Relay),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Relay(relay) => relay.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Relay(relay) => relay.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Relay(relay) => relay.incoming.size_hint(),
        }
    }
}
