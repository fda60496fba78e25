//! A byte stream to a service that may answer early and close: what it has sent is read, although it takes nothing more.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A byte stream whose failed writes wait until everything that has come was read.
pub(super) struct AnswerFirst<S> {
    io: S,
    write_failed: bool,
    read_over: bool,
}

impl<S> AnswerFirst<S> {
    pub(super) fn new(io: S) -> Self {
        Self { io, write_failed: false, read_over: false }
    }

    /// Why nothing is written any more, if that is so.
    fn poll_open(&self) -> Poll<io::Result<()>> {
        match (self.write_failed, self.read_over) {
            (false, _) => Poll::Ready(Ok(())),
            (true, false) => Poll::Pending,
            (true, true) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Holds back an error of writing.
    fn hold<T>(&mut self, cx: &Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if self.read_over || !matches!(written, Poll::Ready(Err(_))) {
            return written;
        }
        self.write_failed = true;
        // To read on.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AnswerFirst<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.remaining();
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        self.read_over |= read.is_err() || (before > 0 && buf.remaining() == before);
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AnswerFirst<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_open())?;
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.hold(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open())?;
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.hold(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open())?;
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.hold(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.write_failed { Poll::Ready(Ok(())) } else { Pin::new(&mut self.io).poll_shutdown(cx) }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn received_bytes_are_read_after_a_failed_write() {
        let (io, mut service) = tokio::io::duplex(64);
        let mut io = AnswerFirst::new(io);
        service.write_all(b"too large").await.unwrap();
        drop(service);
        let written = poll_fn(|cx| Poll::Ready(Pin::new(&mut io).poll_write(cx, b"more"))).await;
        assert!(written.is_pending());
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "too large");
        assert!(io.write(b"more").await.is_err());
        assert!(io.shutdown().await.is_ok());
    }

    #[tokio::test]
    async fn a_service_that_reads_gets_everything() {
        let (io, mut service) = tokio::io::duplex(64);
        let mut io = AnswerFirst::new(io);
        io.write_all(b"whole").await.unwrap();
        io.shutdown().await.unwrap();
        let mut read = String::new();
        service.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "whole");
    }
}
