//! What waits to be written on a connection of HTTP/1.1: heads and small pieces together, large pieces as they are.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// A piece up to this length is copied: one write of a few bytes more is cheaper than a second slice.
const SMALL: usize = 4096;
/// Nothing is added while so much waits.
const FULL: usize = 16 << 10;

/// What waits to be written.
#[derive(Default)]
pub(super) struct Output {
    /// Heads, sizes of chunks and small pieces.
    bytes: Vec<u8>,
    written: usize,
    /// What follows them.
    piece: Bytes,
    /// What follows the piece.
    tail: &'static [u8],
    unflushed: bool,
}

impl Output {
    /// Where heads are written. To be called only while there is room.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(1024);
        }
        &mut self.bytes
    }

    /// Adds a piece, and what follows it.
    pub(super) fn push(&mut self, piece: Bytes, tail: &'static [u8]) {
        if piece.len() <= SMALL {
            self.bytes().extend_from_slice(&piece);
            self.bytes.extend_from_slice(tail);
        } else {
            (self.piece, self.tail) = (piece, tail);
        }
    }

    /// Whether more may be added.
    pub(super) fn has_room(&self) -> bool {
        self.piece.is_empty() && self.tail.is_empty() && self.bytes.len() - self.written < FULL
    }

    /// Ready when all is written.
    pub(super) fn poll_write(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.written == self.bytes.len() && self.piece.is_empty() && self.tail.is_empty() {
                if self.bytes.capacity() > FULL {
                    self.bytes = Vec::new();
                }
                self.bytes.clear();
                self.written = 0;
                return Poll::Ready(Ok(()));
            }
            if self.written >= FULL {
                // A client that never takes all of what waits would let it grow for ever.
                self.bytes.drain(..self.written);
                self.written = 0;
            }
            let bytes = &self.bytes[self.written..];
            let mut count = if self.piece.is_empty() && self.tail.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, bytes))?
            } else {
                let slices = [IoSlice::new(bytes), IoSlice::new(&self.piece), IoSlice::new(self.tail)];
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            let of_bytes = count.min(self.bytes.len() - self.written);
            self.written += of_bytes;
            count -= of_bytes;
            let of_piece = count.min(self.piece.len());
            self.piece.advance(of_piece);
            self.tail = &self.tail[count - of_piece..];
        }
    }

    /// Ready when all is written, and passed on by what is below.
    pub(super) fn poll_flush(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_write(io, cx))?;
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Frees the memory. To be called when all is written.
    pub(super) fn free(&mut self) {
        self.bytes = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Never takes all that there is.
    struct Reluctant(Vec<u8>);

    impl AsyncWrite for Reluctant {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let Some(count) = bytes.len().checked_sub(10).filter(|count| *count > 0) else { return Poll::Pending };
            self.0.extend_from_slice(&bytes[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_is_written_is_not_kept() {
        let (mut output, mut io, mut cx) =
            (Output::default(), Reluctant(Vec::new()), Context::from_waker(Waker::noop()));
        for number in 0..1_000_u32 {
            output.push(Bytes::from(format!("{number:>1000}")), b"\r\n");
            let _ = output.poll_write(&mut io, &mut cx).map(Result::unwrap);
        }
        assert!(output.bytes.len() < 2 * FULL, "{}", output.bytes.len());
        let expected: String = (0..1_000).map(|number| format!("{number:>1000}\r\n")).collect();
        assert!(expected.as_bytes().starts_with(&io.0) && io.0.len() > 900_000);
    }
}
