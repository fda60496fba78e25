//! The body of a service's answer, read by hyper.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::driver::Driver;
use super::error::BodyError;

/// The body of a service's answer.
pub struct ServiceBody {
    incoming: Incoming,
    source: Source,
}

/// Where it comes from.
enum Source {
    Http1(Driver),
    /// A stream, of which hyper takes a reset with NO_ERROR anywhere for the end.
    Http2,
}

impl ServiceBody {
    /// Of an answer on a connection of HTTP/1.1.
    pub(crate) fn http1(incoming: Incoming, driver: Driver) -> Self {
        Self { incoming, source: Source::Http1(driver) }
    }

    /// Of an answer on a stream of HTTP/2.
    pub(crate) fn http2(incoming: Incoming) -> Self {
        Self { incoming, source: Source::Http2 }
    }
}

impl Body for ServiceBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { incoming, source } = self.get_mut();
        let frame = match source {
            Source::Http1(driver) => driver.poll(cx, |cx| Pin::new(&mut *incoming).poll_frame(cx)),
            Source::Http2 => Pin::new(&mut *incoming).poll_frame(cx),
        };
        match ready!(frame) {
            None if matches!(source, Source::Http2) && !incoming.is_end_stream() => {
                Poll::Ready(Some(Err(BodyError::Unfinished)))
            }
            frame => Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Broken))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
