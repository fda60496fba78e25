//! The bytes of an HTTP/2 client, below h2.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::deadline::WriteTimeout;

use super::wakeups::Wakeups;

/// A client's bytes. It must take what is written, and what it sends is noted.
pub(super) struct ClientStream<S> {
    io: WriteTimeout<S>,
    reads: Arc<Reads>,
    /// `reads`, as a waker.
    waker: Waker,
}

/// What is known of reading. As a waker: there may be more to read.
pub(super) struct Reads {
    /// The client has sent something since this was looked at last.
    pub(super) has_sent: AtomicBool,
    /// All that had come is read. Whenever h2 is polled it reads, mostly in vain.
    is_drained: AtomicBool,
    wakeups: Arc<Wakeups>,
}

impl Reads {
    pub(super) fn new(wakeups: Arc<Wakeups>) -> Arc<Self> {
        Arc::new(Self { has_sent: AtomicBool::default(), is_drained: AtomicBool::default(), wakeups })
    }
}

impl Wake for Reads {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_drained.store(false, Ordering::Release);
        self.wakeups.wake_by_ref();
    }
}

impl<S> ClientStream<S> {
    pub(super) fn new(io: WriteTimeout<S>, reads: &Arc<Reads>) -> Self {
        Self { io, reads: reads.clone(), waker: reads.clone().into() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    /// h2 is woken for more by way of [`Wakeups`], whatever `_cx` has.
    fn poll_read(self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { io, reads, waker } = self.get_mut();
        // Noted beforehand, because it may be woken at once.
        if reads.is_drained.swap(true, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let read = ready!(Pin::new(io).poll_read(&mut Context::from_waker(waker), buf));
        reads.is_drained.store(false, Ordering::Release);
        read?;
        reads.has_sent.store(true, Ordering::Relaxed);
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
