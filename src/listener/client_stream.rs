//! The bytes of an HTTP/2 client, below h2.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::deadline::WriteTimeout;

/// A client's bytes. It must take what is written, and what it sends is noted.
pub(super) struct ClientStream<S> {
    io: WriteTimeout<S>,
    reads: Arc<Reads>,
}

/// What is known of reading.
#[derive(Default)]
pub(super) struct Reads {
    /// The client has sent something since this was looked at last.
    pub(super) has_sent: AtomicBool,
    /// All that had come is read. h2 reads before it gives out each request, mostly in vain.
    is_drained: AtomicBool,
}

impl Reads {
    /// More may have come.
    pub(super) fn go_on(&self) {
        self.is_drained.store(false, Ordering::Relaxed);
    }
}

impl<S> ClientStream<S> {
    pub(super) fn new(io: WriteTimeout<S>, reads: Arc<Reads>) -> Self {
        Self { io, reads }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // The reader is woken for more, as the read that found nothing has seen to.
        if self.reads.is_drained.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        self.reads.is_drained.store(polled.is_pending(), Ordering::Relaxed);
        ready!(polled)?;
        self.reads.has_sent.store(true, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
