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
    /// All of it has come. It may lie here for long, and its connection goes on without it.
    Over,
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
            Source::Over => return Poll::Ready(None),
        };
        let frame = match ready!(frame) {
            None if matches!(source, Source::Http2) && !incoming.is_end_stream() => Some(Err(BodyError::Unfinished)),
            frame => frame.map(|frame| frame.map_err(BodyError::Broken)),
        };
        let goes_on = frame.as_ref().is_some_and(|frame| frame.as_ref().is_ok_and(Frame::is_data));
        if !goes_on || incoming.is_end_stream() {
            *source = Source::Over;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::time::Duration;

    use http::Request;
    use http_body_util::{BodyExt, Empty};
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_body_that_has_come_does_not_hold_its_connection() {
        let (io, mut service) = tokio::io::duplex(1 << 16);
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
        let driver = Driver::new(async move { drop(connection.await) });
        let mut answer = pin!(sender.send_request(Request::new(Empty::<Bytes>::new())));
        let answer = poll_fn(|cx| driver.poll(cx, |cx| answer.as_mut().poll(cx)));
        let served = async {
            assert!(service.read(&mut [0; 1024]).await.unwrap() > 0);
            service.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        };
        let (answer, ()) = tokio::join!(answer, served);
        let mut body = ServiceBody::http1(answer.unwrap().into_body(), driver.clone());
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "ok");
        drop((sender, driver));
        let closed = tokio::time::timeout(Duration::from_secs(10), service.read(&mut [0; 16])).await;
        assert_eq!(closed.expect("the connection is closed").unwrap(), 0);
        assert!(body.frame().await.is_none() && body.is_end_stream());
    }
}
