//! One side of a call: what it sends, what it receives, and the frames that Callgate itself sends to it between two others.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Instant;

use super::client_end::CallIo;
use super::end::{CloseFrames, EndedBy};
use super::frames::{FrameTracker, PING, close_frame, control_frame};
use super::pongs::PongFilter;

thread_local! {
    /// What is being passed on. All calls of a thread share it, so that an idle call has no buffer.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 16 * 1024]);
}

/// One side of a call.
pub(super) struct Side {
    pub(super) role: EndedBy,
    io: CallIo,
    /// Bytes that this side has sent to the other.
    pub(super) bytes: u64,
    /// What the other side has not taken yet of them, from `pending_sent` on.
    pending: Vec<u8>,
    pending_sent: usize,
    /// It sends nothing more.
    pub(super) read_closed: bool,
    /// It takes nothing more.
    pub(super) write_closed: bool,
    /// The frames of the other side that it has received.
    pub(super) received: FrameTracker,
    own_frame: Option<OwnFrame>,
    unflushed: bool,
    /// It gets no new frame.
    pub(super) stopping: bool,
    /// Callgate has sent, or queued, a Close frame for it.
    close_queued: bool,
    pings: Option<PingState>,
}

/// A frame of Callgate's on its way.
struct OwnFrame {
    bytes: Vec<u8>,
    sent: usize,
    is_ping: bool,
}

/// Whether a side is still there.
struct PingState {
    pongs: PongFilter,
    last_heard: Instant,
    /// When the unanswered ping was sent.
    pinged: Option<Instant>,
    /// Pings of the other side that it had received when it was last heard.
    received: u64,
}

impl Side {
    pub(super) fn new(io: CallIo, role: EndedBy, pinged: bool, now: Instant) -> Self {
        let pongs = PongFilter::new(fastrand::u64(..).to_be_bytes());
        Self {
            role,
            io,
            bytes: 0,
            pending: Vec::new(),
            pending_sent: 0,
            read_closed: false,
            write_closed: false,
            received: FrameTracker::default(),
            own_frame: None,
            unflushed: false,
            stopping: false,
            close_queued: false,
            pings: pinged.then_some(PingState { pongs, last_heard: now, pinged: None, received: 0 }),
        }
    }

    /// Whether no frame towards it is incomplete.
    pub(super) fn is_frame_complete(&self) -> bool {
        self.received.is_between() && self.own_frame.as_ref().is_none_or(|own| own.sent == 0)
    }

    /// Reads something and passes it on, or keeps it until the other side takes it; `Ok(false)` at the end.
    ///
    /// # Errors
    /// Of reading. An error of the other side comes back when it is written to again.
    pub(super) fn poll_read(&mut self, other: &mut Self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
            let read = buffer.filled();
            if read.is_empty() {
                self.read_closed = true;
                return Poll::Ready(Ok(false));
            }
            let filtered = self.pings.as_mut().and_then(|pings| {
                (pings.last_heard, pings.pinged, pings.received) = (Instant::now(), None, self.received.pings);
                pings.pongs.filter(read)
            });
            let mut rest = filtered.as_deref().unwrap_or(read);
            self.bytes += rest.len() as u64;
            while !rest.is_empty() && !other.write_closed {
                match other.poll_send(cx, rest) {
                    Poll::Ready(Ok(sent)) => rest = &rest[sent..],
                    Poll::Ready(Err(_)) | Poll::Pending => break,
                }
            }
            self.pending = rest.to_vec();
            Poll::Ready(Ok(true))
        })
    }

    /// Passes on what is pending; `Ready` when nothing is.
    ///
    /// # Errors
    /// Of the other side.
    pub(super) fn poll_send_pending(&mut self, other: &mut Self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(other.poll_own_frame(cx))?;
        while self.pending_sent < self.pending.len() {
            self.pending_sent += ready!(other.poll_send(cx, &self.pending[self.pending_sent..]))?;
        }
        self.drop_pending();
        Poll::Ready(Ok(()))
    }

    /// Frees the memory.
    pub(super) fn drop_pending(&mut self) {
        self.pending = Vec::new();
        self.pending_sent = 0;
    }

    /// Sends bytes of the other side: only to the end of the current frame while one of Callgate's waits, or when this side is
    /// stopping.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_own_frame(cx))?;
        let ends_with_frame = self.stopping || self.own_frame.is_some() && !self.received.closed;
        let bytes = if ends_with_frame { &bytes[..self.received.rest_of_frame(bytes)] } else { bytes };
        if bytes.is_empty() {
            // No waker: the caller that stops this side polls it itself.
            return Poll::Pending;
        }
        let sent = ready!(self.poll_write(cx, bytes))?;
        self.received.pass(&bytes[..sent]);
        Poll::Ready(Ok(sent))
    }

    /// Sends Callgate's own frame, if there is one, between two frames of the other side.
    fn poll_own_frame(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let may_begin = !self.stopping && self.received.is_between() && !self.received.closed;
        while let Some(mut own) = self.own_frame.take_if(|own| own.sent > 0 || may_begin) {
            let written = self.poll_write(cx, &own.bytes[own.sent..]);
            if let Poll::Ready(Ok(written)) = written {
                own.sent += written;
            }
            if own.sent < own.bytes.len() {
                self.own_frame = Some(own);
            } else if let Some(pings) = self.pings.as_mut().filter(|_| own.is_ping) {
                pings.pinged = Some(Instant::now());
                pings.pongs.pinged = true;
            }
            ready!(written)?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.unflushed = true;
        Poll::Ready(if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) })
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Queues a Close frame as the last one, unless another frame is incomplete.
    pub(super) fn queue_close(&mut self, frames: &CloseFrames) {
        if self.is_frame_complete() {
            self.own_frame = Some(OwnFrame { bytes: self.close_frame(frames), sent: 0, is_ping: false });
            self.close_queued = true;
        }
    }

    /// Shuts the connection down, after everything was sent.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_own_frame(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Sends a Close frame, unless it has got one or another frame is incomplete, and waits for the side to close.
    pub(super) async fn close(&mut self, frames: &CloseFrames) {
        if self.write_closed {
            return;
        }
        if self.is_frame_complete() && !self.close_queued && !self.received.closed {
            let _ = self.io.write_all(&self.close_frame(frames)).await;
        }
        let _ = self.io.flush().await;
        let _ = self.io.shutdown().await;
        // If a socket is closed with unread data, its peer may lose the Close frame.
        // A vector: an array would be part of every call's task from its beginning.
        let mut scratch = vec![0; 1024];
        while self.io.read(&mut scratch).await.is_ok_and(|read| read > 0) {}
    }

    fn close_frame(&self, frames: &CloseFrames) -> Vec<u8> {
        let code = if self.is_masked() { frames.to_upstream } else { frames.to_client };
        close_frame(code, &frames.reason, self.is_masked())
    }

    /// To the upstream, Callgate is a client.
    fn is_masked(&self) -> bool {
        self.role == EndedBy::Upstream
    }

    /// Queues a ping when the side has sent nothing for `interval`. When to check again; `None`: no answer within `timeout`.
    pub(super) fn check_ping(&mut self, now: Instant, interval: Duration, timeout: Duration) -> Option<Instant> {
        let is_masked = self.is_masked();
        let Some(pings) = &mut self.pings else { return Some(now + interval) };
        if !self.pending.is_empty() {
            // It is not read while the other side takes nothing.
            (pings.last_heard, pings.pinged) = (now, None);
        }
        match pings.pinged {
            Some(pinged) if now >= pinged + timeout => return None,
            // The next ping may be due before that, if an answer comes.
            Some(pinged) => return Some((pinged + timeout).min(now + interval)),
            None if now < pings.last_heard + interval => return Some(pings.last_heard + interval),
            // The other side's ping serves as well: a peer that answers only the latest ping must not miss that one.
            None if self.received.pings > pings.received => pings.pinged = Some(now),
            None if self.own_frame.is_none() => {
                let bytes = control_frame(PING, &pings.pongs.payload, is_masked);
                self.own_frame = Some(OwnFrame { bytes, sent: 0, is_ping: true });
            }
            None => {}
        }
        Some(now + timeout.min(interval))
    }
}
