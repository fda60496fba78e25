//! The client's end of a call: an upgraded HTTP/1.1 connection, or a stream of an HTTP/2 connection (RFC 8441 §5).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use http::Request;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio_util::either::Either;

use crate::body::{CallHalves, IncomingBody, UpgradedConnection};

/// The client's end, before the call begins.
pub(crate) enum ClientEnd {
    Connection(oneshot::Receiver<UpgradedConnection>),
    Stream(CallHalves),
}

/// One end of a call, as bytes.
pub(super) type CallIo = Either<Either<TokioIo<Upgraded>, UpgradedConnection>, CallStream>;

/// A stream of HTTP/2 that has become a call.
pub(crate) struct CallStream {
    receive: RecvStream,
    send: SendStream<Bytes>,
    /// Received and not read yet.
    received: Bytes,
    is_shut_down: bool,
}

impl ClientEnd {
    /// Takes it from the request that asks for a call; `None` if that has none.
    pub(crate) fn of(request: &mut Request<IncomingBody>) -> Option<Self> {
        match request.body_mut() {
            IncomingBody::Call(halves) => halves.take().map(Self::Stream),
            IncomingBody::Upgrade(upgrade) => upgrade.take().map(Self::Connection),
            _ => None,
        }
    }

    /// Waits until the client has got the answer that opens the call.
    ///
    /// # Errors
    /// When it could not be sent.
    pub(super) async fn open(self) -> io::Result<CallIo> {
        match self {
            Self::Connection(upgrade) => {
                let connection = upgrade.await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionReset))?;
                Ok(Either::Left(Either::Right(connection)))
            }
            Self::Stream(CallHalves { receive, send }) => {
                let send = send.await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionReset))?;
                Ok(Either::Right(CallStream { receive, send, received: Bytes::new(), is_shut_down: false }))
            }
        }
    }
}

/// The upstream's end, on a connection that switches protocols.
pub(super) async fn upgraded(upgrade: OnUpgrade) -> io::Result<CallIo> {
    let connection = upgrade.await.map_err(io::Error::other)?;
    Ok(Either::Left(Either::Left(TokioIo::new(connection))))
}

impl AsyncRead for CallStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.received.is_empty() {
            match ready!(this.receive.poll_data(cx)) {
                Some(Ok(data)) => this.received = data,
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => {
                    // A client may cancel a stream that it no longer needs.
                    let is_orderly = matches!(error.reason(), Some(Reason::NO_ERROR | Reason::CANCEL));
                    return Poll::Ready(if is_orderly { Ok(()) } else { Err(io::Error::other(error)) });
                }
            }
        }
        let length = this.received.len().min(buf.remaining());
        buf.put_slice(&this.received[..length]);
        this.received.advance(length);
        // This fails only when the stream is over.
        let _ = this.receive.flow_control().release_capacity(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CallStream {
    /// Takes all bytes as soon as the client's window has room for some: h2 buffers the rest, and the next write waits for it.
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.send.capacity() == 0 {
            this.send.reserve_capacity(1);
        }
        while this.send.capacity() == 0 {
            match ready!(this.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        this.send.send_data(Bytes::copy_from_slice(bytes), false).map_err(io::Error::other)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's own task writes it.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.is_shut_down, true) {
            this.send.send_data(Bytes::new(), true).map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(()))
    }
}
