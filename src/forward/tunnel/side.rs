//! One end of a call: what it says, what it is told, and what Callgate itself has to say to it between two frames.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Instant;

use super::TransferStats;
use super::client_end::Wire;
use super::end::EndedBy;
use super::frames::{Frames, close_frame, ping_frame};
use super::pongs::{PAYLOAD, Pongs};

thread_local! {
    /// What is being passed on. All calls of a thread share it, so that a call in which nothing happens holds no buffer.
    static PASSING: RefCell<Vec<u8>> = RefCell::new(vec![0; 16 * 1024]);
}

/// One end of a call.
pub(super) struct Side {
    pub(super) who: EndedBy,
    io: Wire,
    /// What this side has said.
    bytes: u64,
    /// What of it the other side has not taken yet, from `taken` on.
    waiting: Vec<u8>,
    taken: usize,
    /// It will say nothing more.
    pub(super) ended: bool,
    /// The frames of the other side that it was told.
    pub(super) told: Frames,
    /// It takes nothing more.
    pub(super) deaf: bool,
    own: Option<Own>,
    unflushed: bool,
    stopping: bool,
    /// Callgate has said goodbye to it.
    parted: bool,
    pings: Option<Pings>,
}

/// A frame of Callgate's on its way.
struct Own {
    frame: Vec<u8>,
    sent: usize,
    is_ping: bool,
}

/// Whether a side is still there.
struct Pings {
    payload: [u8; PAYLOAD],
    pongs: Pongs,
    heard: Instant,
    asked: Option<Instant>,
    /// Pings of the other side that had passed when this one was last heard.
    told: u64,
}

impl Side {
    pub(super) fn new(io: Wire, who: EndedBy, pinged: bool, now: Instant) -> Self {
        let payload = fastrand::u64(..).to_be_bytes();
        let pings = || Pings { payload, pongs: Pongs::new(payload), heard: now, asked: None, told: 0 };
        Self {
            who,
            io,
            bytes: 0,
            waiting: Vec::new(),
            taken: 0,
            ended: false,
            told: Frames::default(),
            deaf: false,
            own: None,
            unflushed: false,
            stopping: false,
            parted: false,
            pings: pinged.then(pings),
        }
    }

    /// Bytes that it has said to the other side.
    pub(super) fn said(&self) -> u64 {
        self.bytes
    }

    /// What it has said, by the frames that the other side was told.
    pub(super) fn heard(&self, other: &Self) -> TransferStats {
        TransferStats { bytes: self.bytes, messages: other.told.messages() }
    }

    /// From now on it is told no new frame.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopping
    }

    /// Whether no frame towards it has begun that is not whole.
    pub(super) fn is_whole(&self) -> bool {
        self.told.is_between() && self.own.as_ref().is_none_or(|own| own.sent == 0)
    }

    /// Hears something and passes it on, or holds it until the other takes it; `Ok(false)` at the end.
    ///
    /// # Errors
    /// Of reading. If the other fails to take it, that shows when it is offered again.
    pub(super) fn poll_hear(&mut self, other: &mut Self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        PASSING.with_borrow_mut(|passing| {
            let mut buffer = ReadBuf::new(passing);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
            let heard = buffer.filled();
            if heard.is_empty() {
                self.ended = true;
                return Poll::Ready(Ok(false));
            }
            let sifted = self.pings.as_mut().and_then(|pings| pings.hear(heard, self.told.pings()));
            let mut heard = sifted.as_deref().unwrap_or(heard);
            self.bytes += heard.len() as u64;
            while !heard.is_empty() && !other.deaf {
                match other.poll_take(cx, heard) {
                    Poll::Ready(Ok(taken)) => heard = &heard[taken..],
                    Poll::Ready(Err(_)) | Poll::Pending => break,
                }
            }
            self.waiting = heard.to_vec();
            Poll::Ready(Ok(true))
        })
    }

    /// Passes on what waits; `Ready` when all is passed.
    ///
    /// # Errors
    /// Of the other side.
    pub(super) fn poll_pass(&mut self, other: &mut Self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(other.poll_own(cx))?;
        while self.taken < self.waiting.len() {
            self.taken += ready!(other.poll_take(cx, &self.waiting[self.taken..]))?;
        }
        self.drop_waiting();
        Poll::Ready(Ok(()))
    }

    /// Gives the memory back.
    pub(super) fn drop_waiting(&mut self) {
        self.waiting = Vec::new();
        self.taken = 0;
    }

    /// Takes something of what the other says: less of it while a frame of Callgate's waits for the end of the present one, and
    /// nothing new once it was stopped.
    fn poll_take(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_own(cx))?;
        let cut = self.stopping || self.own.is_some() && !self.told.is_closed();
        let bytes = if cut { &bytes[..self.told.rest_of_frame(bytes)] } else { bytes };
        if bytes.is_empty() {
            // Who stopped it looks by itself.
            return Poll::Pending;
        }
        let taken = ready!(self.poll_write(cx, bytes))?;
        self.told.pass(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    /// Says what Callgate has to say, if it is its turn.
    fn poll_own(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let may_begin = !self.stopping && self.told.is_between() && !self.told.is_closed();
        while let Some(mut own) = self.own.take_if(|own| own.sent > 0 || may_begin) {
            let written = self.poll_write(cx, &own.frame[own.sent..]);
            if let Poll::Ready(Ok(written)) = written {
                own.sent += written;
            }
            if own.sent < own.frame.len() {
                self.own = Some(own);
            } else if let Some(pings) = self.pings.as_mut().filter(|_| own.is_ping) {
                pings.asked = Some(Instant::now());
                pings.pongs.asked();
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

    /// Sends what lies in buffers below.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Has it told, as the last thing, why nothing more comes; not in the middle of a frame.
    pub(super) fn say_goodbye(&mut self, code: u16, reason: &str) {
        if self.is_whole() {
            let frame = close_frame(code, reason, self.is_masked());
            self.own = Some(Own { frame, sent: 0, is_ping: false });
            self.parted = true;
        }
    }

    /// Tells it that nothing more comes, when all is said.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_own(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Says goodbye, unless a Close frame has passed already or another frame is not whole, and waits for it to close.
    pub(super) async fn part(&mut self, code: u16, reason: &str) {
        if self.deaf {
            return;
        }
        if self.is_whole() && !self.parted && !self.told.is_closed() {
            let _ = self.io.write_all(&close_frame(code, reason, self.is_masked())).await;
        }
        let _ = self.io.flush().await;
        let _ = self.io.shutdown().await;
        // A socket that is closed while something in it is unread takes the goodbye back.
        // An array would be part of every call's task from its beginning.
        let mut scratch = vec![0; 1024];
        while self.io.read(&mut scratch).await.is_ok_and(|read| read > 0) {}
    }

    /// The upstream sees a client in us.
    fn is_masked(&self) -> bool {
        self.who == EndedBy::Upstream
    }

    /// Has it pinged when it has said nothing for `every`. When to look again; `None`: it did not answer within `patience`.
    pub(super) fn look_after(&mut self, now: Instant, every: Duration, patience: Duration) -> Option<Instant> {
        let is_masked = self.is_masked();
        let Some(pings) = &mut self.pings else { return Some(now + every) };
        if !self.waiting.is_empty() {
            // It can't be heard as long as the other takes nothing.
            (pings.heard, pings.asked) = (now, None);
        }
        match pings.asked {
            Some(asked) if now >= asked + patience => return None,
            Some(asked) => return Some(asked + patience),
            None if now < pings.heard + every => return Some(pings.heard + every),
            // The other has asked it: who answers only the latest ping must not be taken from it.
            None if self.told.pings() > pings.told => pings.asked = Some(now),
            None if self.own.is_none() => {
                self.own = Some(Own { frame: ping_frame(&pings.payload, is_masked), sent: 0, is_ping: true });
            }
            None => {}
        }
        Some(now + patience)
    }
}

impl Pings {
    fn hear(&mut self, heard: &[u8], told: u64) -> Option<Vec<u8>> {
        (self.heard, self.asked, self.told) = (Instant::now(), None, told);
        self.pongs.sift(heard)
    }
}
