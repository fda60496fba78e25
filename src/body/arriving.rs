//! A body that arrives, and may be left in the middle. What is still on its way then is taken in for a moment: over HTTP/2 the stream would
//! be reset behind the answer, and although a client may not drop the answer for that (RFC 9113 §8.1), some do, as curl 7.88.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// Long enough for what a client sends right behind the head of its request.
const PATIENCE: Duration = Duration::from_secs(2);
/// As much as a client may send before it hears of anything: the window of a stream.
const MOST: usize = 256 << 10;

/// A body that arrives.
pub struct Arriving {
    /// Gone only when this is dropped.
    incoming: Option<Incoming>,
    lingers: bool,
}

impl Arriving {
    /// The body of a client's request.
    #[must_use]
    pub fn of_client(request: Request<Incoming>) -> Request<Self> {
        let lingers = request.version() == Version::HTTP_2;
        request.map(|incoming| Self { incoming: Some(incoming), lingers })
    }

    /// Has it reset as soon as it is left: its client waits for that to stop.
    pub(crate) fn stop_at_once(&mut self) {
        self.lingers = false;
    }
}

impl From<Incoming> for Arriving {
    /// The body of an upstream's answer.
    fn from(incoming: Incoming) -> Self {
        Self { incoming: Some(incoming), lingers: false }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let left = self.incoming.take().filter(|incoming| self.lingers && !incoming.is_end_stream());
        if let (Some(incoming), Ok(runtime)) = (left, tokio::runtime::Handle::try_current()) {
            runtime.spawn(tokio::time::timeout(PATIENCE, take_in(incoming)));
        }
    }
}

/// Reads to the end, if that is not far, and forgets it.
async fn take_in(mut incoming: Incoming) {
    let mut left = MOST;
    while let Some(Ok(frame)) = incoming.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(length) else { return };
        left = rest;
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.get_mut().incoming {
            Some(incoming) => Pin::new(incoming).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}
