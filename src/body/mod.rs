//! Bodies on their way through Callgate.

mod copy;
mod error;
mod incoming;
mod observed;
mod progress;
mod relay;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::oneshot;

use crate::config::HeaderEdits;
use crate::deadline::End;

use relay::Relay;

pub(crate) use copy::BodyCopy;
pub use error::{BodyError, BodyFault};
pub(crate) use incoming::LeftBody;
pub use incoming::{AskForBody, CallHalves, IncomingBody, StreamBody};
pub use observed::{BodyObserver, ObservedBody};
pub use progress::Progress;
pub(crate) use relay::{BodyGuard, CleanTrailers};

/// A body that Callgate sends, either way.
pub enum Body {
    /// Nothing.
    Empty,
    /// One piece.
    Full(Bytes),
    /// Whatever arrives from the other side.
    Relay(Relay),
}

impl Body {
    /// Relays `incoming`: at most `limit` bytes, and no silence longer than `idle`, if that is given. `clean` takes off trailers that
    /// may not pass; `edits` are the route's.
    pub(crate) fn relay(
        incoming: IncomingBody,
        idle: Option<Duration>,
        limit: u64,
        clean: CleanTrailers,
        edits: &Arc<HeaderEdits>,
    ) -> Self {
        match incoming.is_end_stream() {
            true => Self::Empty,
            false => Self::Relay(Relay::new(incoming, idle, limit, clean, edits)),
        }
    }

    /// Measures when the body moves; `None` when there is no body. What `guard` makes is dropped with the body.
    pub(crate) fn track(&mut self, guard: impl FnOnce() -> BodyGuard) -> Option<Arc<Progress>> {
        Some(self.as_relay()?.track(guard()))
    }

    /// Breaks off what is not whole at `end`.
    #[must_use]
    pub(crate) fn until(mut self, end: Option<End>) -> Self {
        if let Some(relay) = self.as_relay() {
            relay.until(end);
        }
        self
    }

    /// Keeps a copy of what passes, of at most `max_bytes`, and hands it over when the body has ended well; `None` when there is no
    /// body. Trailers are not in it.
    pub(crate) fn copy(&mut self, max_bytes: usize) -> Option<oneshot::Receiver<BodyCopy>> {
        Some(self.as_relay()?.copy(max_bytes))
    }

    /// Measures the silence of a body together with that of the body in the other direction: one is silent while the other
    /// speaks.
    #[must_use]
    pub(crate) fn beside(mut self, other: &Arc<Progress>) -> Self {
        if let Some(relay) = self.as_relay() {
            relay.beside(other);
        }
        self
    }

    fn as_relay(&mut self) -> Option<&mut Relay> {
        match self {
            Self::Relay(relay) => Some(relay),
            Self::Empty | Self::Full(_) => None,
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            whole @ Self::Full(_) => match std::mem::replace(whole, Self::Empty) {
                Self::Full(bytes) if !bytes.is_empty() => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Self::Full(_) | Self::Empty | Self::Relay(_) => Poll::Ready(None),
            },
            Self::Relay(relay) => relay.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Relay(relay) => relay.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Relay(relay) => relay.size_hint(),
        }
    }
}
