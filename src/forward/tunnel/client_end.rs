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

use crate::body::{CallHalves, IncomingBody};

/// The client's end, before the call begins.
pub(crate) enum ClientEnd {
    Connection(OnUpgrade),
    Stream(CallHalves),
}

/// One end of a call, as bytes.
pub(super) enum Wire {
    Connection(TokioIo<Upgraded>),
    Stream(CallStream),
}

/// A stream of HTTP/2 that has become a call.
pub(super) struct CallStream {
    receive: RecvStream,
    send: SendStream<Bytes>,
    /// What came and was not read yet.
    heard: Bytes,
    is_ended: bool,
}

impl ClientEnd {
    /// Takes it from the request that asks for a call.
    pub(crate) fn of(request: &mut Request<IncomingBody>) -> Self {
        if let IncomingBody::Call(halves) = request.body_mut()
            && let Some(halves) = halves.take()
        {
            return Self::Stream(halves);
        }
        Self::Connection(hyper::upgrade::on(request))
    }

    /// Waits until the client has been told that the call may begin.
    ///
    /// # Errors
    /// When it could not be told.
    pub(super) async fn open(self) -> io::Result<Wire> {
        match self {
            Self::Connection(upgrade) => {
                let upgraded = upgrade.await.map_err(io::Error::other)?;
                Ok(Wire::of(upgraded))
            }
            Self::Stream(CallHalves { receive, send }) => {
                let send = send.await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionReset))?;
                Ok(Wire::Stream(CallStream { receive, send, heard: Bytes::new(), is_ended: false }))
            }
        }
    }
}

impl Wire {
    /// The upstream's end.
    pub(super) fn of(upgraded: Upgraded) -> Self {
        Self::Connection(TokioIo::new(upgraded))
    }
}

impl AsyncRead for CallStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.heard.is_empty() {
            match ready!(this.receive.poll_data(cx)) {
                Some(Ok(data)) => this.heard = data,
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => {
                    // Who gives up a stream in good order wants no more of it, and that is no fault.
                    let is_orderly = matches!(error.reason(), Some(Reason::NO_ERROR | Reason::CANCEL));
                    return Poll::Ready(if is_orderly { Ok(()) } else { Err(into_io(error)) });
                }
            }
        }
        let length = this.heard.len().min(buf.remaining());
        buf.put_slice(&this.heard[..length]);
        this.heard.advance(length);
        // This fails only where nobody sends any more.
        let _ = this.receive.flow_control().release_capacity(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CallStream {
    /// Takes all of it as soon as the client has room for some: what the windows do not let through yet waits in h2, and holds up
    /// the next piece.
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.send.capacity() == 0 {
            this.send.reserve_capacity(1);
        }
        while this.send.capacity() == 0 {
            match ready!(this.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        this.send.send_data(Bytes::copy_from_slice(bytes), false).map_err(into_io)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's own task writes what it was given.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.is_ended, true) {
            this.send.send_data(Bytes::new(), true).map_err(into_io)?;
        }
        Poll::Ready(Ok(()))
    }
}

fn into_io(error: h2::Error) -> io::Error {
    io::Error::other(error)
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(connection) => Pin::new(connection).poll_read(cx, buf),
            Self::Stream(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Connection(connection) => Pin::new(connection).poll_write(cx, bytes),
            Self::Stream(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(connection) => Pin::new(connection).poll_flush(cx),
            Self::Stream(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(connection) => Pin::new(connection).poll_shutdown(cx),
            Self::Stream(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
