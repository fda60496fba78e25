//! The byte stream of a client connection, guarded: heads pass only when whole and well-framed, and nobody stalls it for ever.
//!
//! A head that can't be trusted never reaches hyper. In its place hyper is given a request that can only be refused, so that
//! the refusal goes the way of every other answer: JSON body, request id, access line, metric.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::deadline::{Deadline, WriteTimeout};

use super::framing::{EMPTY_LINE, Framing, FramingVerdict};
use super::head::{HeadLimits, RequestFault};
use super::signals::Signals;

const STAND_IN: &[u8] = b"CALLGATE-REFUSED / HTTP/1.1\r\nhost: refused.invalid\r\nconnection: close\r\n\r\n";
/// A client that was refused in the middle of sending gets so long, and so many bytes, to read why (RFC 9112 §9.6). The buffers of both
/// sockets can hold some 6 MiB before a client looks up; closed over what is unread, a connection would take the answer back.
const LINGER: (Duration, usize) = (Duration::from_millis(1_000), 8 << 20);

/// How long a connection may be silent in the middle of something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// From the first byte of a head to its last.
    pub(super) head: Duration,
    /// Without the client taking a byte of what is written.
    pub(super) write: Duration,
}

/// A guarded byte stream.
pub(super) struct Gate<S> {
    io: WriteTimeout<S>,
    /// `None` on HTTP/2, which has a framing of its own.
    framing: Option<Framing>,
    signals: Arc<Signals>,
    /// For a head.
    patience: Duration,
    /// Judged, not yet delivered.
    passed: Bytes,
    /// The beginning of a head.
    held: BytesMut,
    /// What is held has not been judged yet.
    unjudged: bool,
    /// What comes after a fault is swallowed, up to so many more bytes.
    swallows: usize,
    /// The body of a request broke its framing.
    broken: bool,
    /// What hyper is still to be given in place of a refused request.
    stand_in: &'static [u8],
    head_timer: Deadline,
    linger: Option<(Deadline, usize)>,
    /// What is left of interim answers that are being written.
    interim: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gate<S> {
    /// Guards an HTTP/1.1 connection.
    pub(super) fn http1(io: S, limits: HeadLimits, patience: Timeouts, signals: Arc<Signals>) -> Self {
        Self::new(io, Some(Framing::new(limits)), patience, signals)
    }

    /// Guards an HTTP/2 connection.
    pub(super) fn http2(io: S, patience: Timeouts, signals: Arc<Signals>) -> Self {
        Self::new(io, None, patience, signals)
    }

    fn new(io: S, framing: Option<Framing>, patience: Timeouts, signals: Arc<Signals>) -> Self {
        Self {
            io: WriteTimeout::new(io, patience.write),
            framing,
            signals,
            patience: patience.head,
            passed: Bytes::new(),
            held: BytesMut::new(),
            unjudged: false,
            swallows: LINGER.1,
            broken: false,
            stand_in: b"",
            head_timer: Deadline::default(),
            linger: None,
            interim: Bytes::new(),
        }
    }

    /// From here on nothing that the client sends is read; the stand-in comes when what was asked before is answered.
    fn refuse(&mut self, fault: RequestFault) {
        // A second fault can't come: nothing is judged after the first.
        let _ = self.signals.fault.set(fault);
        self.stand_in = STAND_IN;
        self.held = BytesMut::new();
        if let Some(framing) = &mut self.framing {
            framing.refuse();
        }
    }

    /// Whether every request that passed has had its answer.
    fn is_settled(&self) -> bool {
        let passed = self.framing.as_ref().map_or(0, Framing::heads);
        self.signals.over.load(Ordering::Acquire) >= passed
    }

    /// After a fault: ready for the stand-in once everything before it is answered. Until then the client is watched, so that
    /// its leaving ends what it has asked for; ready with `false` when it left.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.signals.gate.register(cx.waker());
        let mut bytes = [0; 4096];
        while !self.is_settled() && self.swallows > 0 {
            let mut buf = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                return Poll::Ready(Ok(false));
            }
            self.swallows = self.swallows.saturating_sub(buf.filled().len());
        }
        if self.is_settled() { Poll::Ready(Ok(true)) } else { Poll::Pending }
    }

    /// Reads straight into hyper's buffer; what is whole passes without a copy.
    fn poll_read_direct(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let Some(framing) = &mut self.framing else {
            self.signals.note_heard();
            return Poll::Ready(Ok(true));
        };
        let fresh = &buf.filled()[before..];
        if fresh.is_empty() {
            return Poll::Ready(Ok(true));
        }
        let verdict = framing.judge(fresh);
        self.signals.set_owed(framing.owed());
        let passed = match verdict {
            FramingVerdict::Pass => return Poll::Ready(Ok(true)),
            FramingVerdict::Partial(passed) => {
                self.held.extend_from_slice(&fresh[passed..]);
                passed
            }
            FramingVerdict::Skip(passed) => {
                self.held.extend_from_slice(&fresh[passed + EMPTY_LINE..]);
                self.unjudged = !self.held.is_empty();
                passed
            }
            FramingVerdict::Refuse(passed, fault) => {
                self.refuse(fault);
                passed
            }
            FramingVerdict::Broken(passed) => {
                self.broken = true;
                passed
            }
        };
        buf.set_filled(before + passed);
        Poll::Ready(Ok(passed > 0))
    }

    /// Reads the rest of a head that came in pieces.
    fn poll_read_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if !std::mem::take(&mut self.unjudged) {
            self.held.reserve(1024);
            let read = tokio_util::io::poll_read_buf(Pin::new(&mut self.io), cx, &mut self.held);
            let Poll::Ready(read) = read else {
                ready!(self.head_timer.poll(cx, self.patience));
                self.refuse(RequestFault::TooSlow);
                return Poll::Ready(Ok(true));
            };
            if read? == 0 {
                return Poll::Ready(Ok(false));
            }
        }
        let Some(framing) = &mut self.framing else { return Poll::Ready(Ok(true)) };
        let verdict = framing.judge(&self.held);
        self.signals.set_owed(framing.owed());
        match verdict {
            FramingVerdict::Pass => self.passed = self.held.split().freeze(),
            FramingVerdict::Partial(0) => return Poll::Ready(Ok(true)),
            FramingVerdict::Partial(passed) => self.passed = self.held.split_to(passed).freeze(),
            FramingVerdict::Skip(passed) => {
                self.passed = self.held.split_to(passed).freeze();
                self.held.advance(EMPTY_LINE);
                self.unjudged = !self.held.is_empty();
            }
            FramingVerdict::Refuse(passed, fault) => {
                self.passed = self.held.split_to(passed).freeze();
                self.refuse(fault);
            }
            FramingVerdict::Broken(passed) => {
                self.passed = self.held.split_to(passed).freeze();
                self.broken = true;
            }
        }
        self.head_timer.disarm();
        Poll::Ready(Ok(true))
    }

    /// Writes the interim answers that wait. What has begun must be whole before anything else is written.
    fn poll_interims(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() || self.signals.interims.is_any() {
            if self.interim.is_empty() {
                self.interim = self.signals.interims.take();
            }
            while !self.interim.is_empty() {
                match ready!(Pin::new(&mut self.io).poll_write(cx, &self.interim))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    written => self.interim.advance(written),
                }
            }
            self.signals.interims.written();
        }
        Poll::Ready(Ok(()))
    }

    /// Swallows what the client still sends, so that closing does not destroy the answer on its way to it.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (timer, left) = self.linger.get_or_insert((Deadline::default(), LINGER.1));
        let mut bytes = [0; 4096];
        while *left > 0 {
            let mut buf = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => *left = left.saturating_sub(buf.filled().len()),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return timer.poll(cx, LINGER.0),
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gate<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.passed.is_empty() {
                let length = this.passed.len().min(buf.remaining());
                buf.put_slice(&this.passed[..length]);
                this.passed.advance(length);
                return Poll::Ready(Ok(()));
            }
            if this.broken {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "malformed chunked body")));
            }
            if this.signals.fault.get().is_some() {
                if this.stand_in.is_empty() {
                    // hyper writes the refusal and closes; until then there is nothing for it to read.
                    return Poll::Pending;
                }
                if !ready!(this.poll_turn(cx))? {
                    return Poll::Ready(Ok(()));
                }
                this.passed = Bytes::from_static(std::mem::take(&mut this.stand_in));
                continue;
            }
            if let Some(framing) = &mut this.framing
                && this.signals.is_tunnel()
            {
                framing.tunnel();
                this.passed = this.held.split().freeze();
                this.framing = None;
                continue;
            }
            if this.held.is_empty() {
                if ready!(this.poll_read_direct(cx, buf))? {
                    return Poll::Ready(Ok(()));
                }
            } else if !ready!(this.poll_read_held(cx))? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.interim.is_empty() {
            ready!(this.poll_interims(cx))?;
        }
        Pin::new(&mut this.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.interim.is_empty() {
            ready!(this.poll_interims(cx))?;
        }
        Pin::new(&mut this.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // hyper flushes when it has handed over all that it had to write.
        ready!(this.poll_interims(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
        }
        if this.framing.as_ref().is_some_and(Framing::is_within_message) {
            ready!(this.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
