//! A body on its way out, and who watches it leave.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{Body, BodyError};

/// Watches a body leave.
pub trait BodyObserver: Send + Unpin + 'static {
    /// So many bytes are handed on.
    fn sent(&mut self, bytes: usize);
    /// A piece is at most so long: how much its receiver has to take before it is seen to have taken anything.
    fn longest_piece(&self) -> usize;
    /// Looks whether the body must end, and why. `waiting`: nothing of it is there at the moment.
    fn poll_revoked(&mut self, cx: &mut Context<'_>, waiting: bool) -> Poll<&'static str>;
    /// The body ended as it should, or broke off. A body that is dropped before either was abandoned by its receiver.
    fn ended(&mut self, result: Result<(), &BodyError>);
}

/// A body and who watches it leave.
pub struct ObservedBody<O> {
    body: Body,
    /// What is left of a piece that is too long.
    rest: Bytes,
    observer: O,
}

impl<O: BodyObserver> ObservedBody<O> {
    /// Puts a watch on a body.
    pub fn new(body: Body, mut observer: O) -> Self {
        if body.is_end_stream() {
            observer.ended(Ok(()));
        }
        Self { body, rest: Bytes::new(), observer }
    }
}

impl<O: BodyObserver> HttpBody for ObservedBody<O> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        let mut polled = match this.rest.is_empty() {
            true => Pin::new(&mut this.body).poll_frame(cx),
            false => Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.rest))))),
        };
        if !matches!(polled, Poll::Ready(None | Some(Err(_))))
            && let Poll::Ready(why) = this.observer.poll_revoked(cx, polled.is_pending())
        {
            polled = Poll::Ready(Some(Err(BodyError::Revoked(why))));
        }
        let mut polled = ready!(polled);
        let longest = this.observer.longest_piece();
        if let Some(data) = polled.as_mut().and_then(|frame| frame.as_mut().ok()?.data_mut())
            && data.len() > longest
        {
            this.rest = data.split_off(longest);
        }
        match &polled {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.observer.sent(data.len());
                }
                // hyper stops polling at the last frame of a body of known length, and at trailers.
                if frame.is_trailers() || this.is_end_stream() {
                    this.observer.ended(Ok(()));
                }
            }
            Some(Err(error)) => this.observer.ended(Err(error)),
            None => this.observer.ended(Ok(())),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}
