//! A deadline that costs nothing until something has to wait for it, and byte streams that are written to under one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Bounds a silence: armed by the first poll that finds nothing, disarmed by progress.
#[derive(Default)]
pub(crate) struct Deadline {
    timer: Option<Pin<Box<Sleep>>>,
    /// `None`: disarmed.
    end: Option<Instant>,
}

impl Deadline {
    /// Ready `after` the first poll since it was disarmed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, after: Duration) -> Poll<()> {
        let end = *self.end.get_or_insert_with(|| Instant::now() + after);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        // A timer that ends too early is set anew when it does: that costs less than with every silence.
        if timer.deadline() > end {
            timer.as_mut().reset(end);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= end {
                return Poll::Ready(());
            }
            timer.as_mut().reset(end);
        }
    }

    /// Something moved: the next silence starts anew.
    pub(crate) fn disarm(&mut self) {
        self.end = None;
    }
}

/// A byte stream whose other side must take what is written: when it takes nothing for so long, writing fails.
pub(crate) struct WriteTimeout<S> {
    io: S,
    patience: Duration,
    stall: Deadline,
}

impl<S> WriteTimeout<S> {
    pub(crate) fn new(io: S, patience: Duration) -> Self {
        Self { io, patience, stall: Deadline::default() }
    }

    fn bounded<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stall.disarm();
            return polled;
        }
        ready!(self.stall.poll(cx, self.patience));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other side reads nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.bounded(cx, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write_vectored(cx, slices);
        this.bounded(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_flush(cx);
        this.bounded(cx, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_shutdown(cx);
        this.bounded(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_silence_has_the_whole_time() {
        let second = Duration::from_secs(1);
        let (mut deadline, began) = (Deadline::default(), Instant::now());
        for (length, silence) in [(10, 4), (10, 9), (3, 2), (10, 9)] {
            let waited = tokio::time::timeout(silence * second, poll_fn(|cx| deadline.poll(cx, length * second)));
            assert!(waited.await.is_err(), "{silence} of {length} seconds");
            deadline.disarm();
        }
        poll_fn(|cx| deadline.poll(cx, 10 * second)).await;
        assert_eq!(began.elapsed().as_secs(), 4 + 9 + 2 + 9 + 10);
        // It is over until it is disarmed.
        poll_fn(|cx| deadline.poll(cx, 10 * second)).await;
        deadline.disarm();
        poll_fn(|cx| deadline.poll(cx, 5 * second)).await;
        assert_eq!(began.elapsed().as_secs(), 39);
    }
}
