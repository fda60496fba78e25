//! The body of an answer on its way to the client: what leaves is counted, and the end of its token or of the instance ends it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Version;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::body::{Body, BodyError};
use crate::response;

use super::request::{RequestLife, StreamKind};

/// A client on HTTP/2 has to take so many bytes of an answer within `body_idle_timeout`.
const HTTP2_PIECE: usize = 32 * 1024;

/// A body, and the life of the request that it answers.
pub(crate) struct AnswerBody {
    body: Body,
    /// What is left of a piece that is too long.
    rest: Bytes,
    /// `None` where a call begins: the life goes on with that.
    life: Option<Box<RequestLife>>,
}

impl AnswerBody {
    pub(super) fn new(body: Body, mut life: Option<Box<RequestLife>>) -> Self {
        if let Some(life) = life.as_mut().filter(|_| body.is_end_stream()) {
            life.body_ended(Ok(()));
        }
        Self { body, rest: Bytes::new(), life }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Self { body, rest, life } = self.get_mut();
        let Some(life) = life else { return Pin::new(body).poll_frame(cx) };
        let mut polled = match rest.is_empty() {
            true => Pin::new(&mut *body).poll_frame(cx),
            false => Poll::Ready(Some(Ok(Frame::data(std::mem::take(rest))))),
        };
        if !matches!(polled, Poll::Ready(None | Some(Err(_))))
            && let Poll::Ready(why) = life.poll_ended(cx, polled.is_pending())
        {
            polled = Poll::Ready(Some(Err(why)));
        }
        let mut polled = ready!(polled);
        match &mut polled {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_mut() {
                    if life.record.version == Version::HTTP_2 && data.len() > HTTP2_PIECE {
                        *rest = data.split_off(HTTP2_PIECE);
                    }
                    life.record.bytes_out += data.len() as u64;
                }
                // hyper stops polling at the last frame of a body of known length, and at trailers.
                if frame.is_trailers() || (rest.is_empty() && body.is_end_stream()) {
                    life.body_ended(Ok(()));
                }
            }
            Some(Err(error)) => {
                life.body_ended(Err(error));
                if life.stream == Some(StreamKind::Grpc)
                    && let Some(trailers) = response::grpc_trailers(error)
                {
                    polled = Some(Ok(Frame::trailers(trailers)));
                }
            }
            None => life.body_ended(Ok(())),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Its length is asked for before its first piece, when there is no rest.
        if self.rest.is_empty() { self.body.size_hint() } else { SizeHint::default() }
    }
}
