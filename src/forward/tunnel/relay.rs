//! Both ends of a call, joined: passes on what each sends, until the call is over or a deadline passes.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::config::CallLimits;

use super::client_end::CallIo;
use super::end::{CloseFrames, CutReason, EndedBy, TunnelEnd};
use super::side::Side;

/// How long a side may take to close after its Close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a frame that is being passed on may take to become complete when a call must stop.
const FRAME_TIMEOUT: Duration = Duration::from_millis(300);
/// Once one side has ended, how long the other may be silent.
const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a call without any limits is checked.
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(86_400);

/// Two sides that are joined.
pub(super) struct CallRelay {
    client: Side,
    upstream: Side,
    limits: CallLimits,
    started: Instant,
    /// When a side last sent something of its own that the other took.
    last_activity: Instant,
    timer: Pin<Box<Sleep>>,
    /// Whether nothing more is passed on from the client, and from the upstream.
    done: [bool; 2],
    /// The side that closed or failed first.
    pub(super) ended_by: Option<EndedBy>,
    cut: Option<CutReason>,
}

impl CallRelay {
    pub(super) fn new(client: CallIo, upstream: CallIo, limits: CallLimits) -> Self {
        let (now, pinged) = (Instant::now(), limits.ping.is_some());
        let mut relay = Self {
            client: Side::new(client, EndedBy::Client, pinged, now),
            upstream: Side::new(upstream, EndedBy::Upstream, pinged, now),
            limits,
            started: now,
            last_activity: now,
            timer: Box::pin(sleep(MAX_CHECK_INTERVAL)),
            done: [false; 2],
            ended_by: None,
            cut: None,
        };
        if let Ok(next) = relay.check_deadlines(now) {
            relay.timer.as_mut().reset(next);
        }
        relay
    }

    /// How the call ended; `by` Callgate, if neither side has ended it.
    pub(super) fn end(&self, by: Option<EndedBy>, cut: Option<CutReason>) -> TunnelEnd {
        TunnelEnd { bytes: self.bytes(), messages: self.messages(), by: by.unwrap_or(EndedBy::Gateway), cut }
    }

    /// Bytes from the client and from the upstream.
    pub(super) fn bytes(&self) -> [u64; 2] {
        [self.client.bytes, self.upstream.bytes]
    }

    /// Messages from the client and from the upstream: each side has received the frames of the other.
    pub(super) fn messages(&self) -> [u64; 2] {
        [self.upstream.received.messages, self.client.received.messages]
    }

    /// Passes on what there is, in both directions; `Ready` when the call is over, with the reason if it did not end by itself.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<CutReason>> {
        loop {
            for from in [EndedBy::Client, EndedBy::Upstream] {
                if !self.done[from as usize] && self.poll_direction(from, cx).is_ready() {
                    self.done[from as usize] = true;
                }
            }
            if self.done == [true; 2] {
                return Poll::Ready(self.cut.take());
            }
            ready!(self.timer.as_mut().poll(cx));
            match self.check_deadlines(Instant::now()) {
                Ok(next) => self.timer.as_mut().reset(next),
                Err(cut) => return Poll::Ready(Some(cut)),
            }
        }
    }

    /// Passes on what one side sends; `Ready` when it has ended and the other side was shut down, or takes no more.
    fn poll_direction(&mut self, from: EndedBy, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let (this, to) = self.pair(from);
            if to.write_closed {
                this.drop_pending();
            } else if let Err(error) = ready!(this.poll_send_pending(to, cx)) {
                self.write_failed(from.other(), error);
                continue;
            }
            if to.stopping && to.is_frame_complete() {
                return Poll::Ready(());
            }
            if this.read_closed {
                // If the shutdown fails, the connection is gone already.
                return if to.write_closed { Poll::Ready(()) } else { to.poll_shutdown(cx).map(|_| ()) };
            }
            let before = this.bytes;
            let read = this.poll_read(to, cx);
            // Answers to Callgate's pings don't keep a call alive, nor does what the other side doesn't take.
            let is_active = this.bytes > before && !to.write_closed;
            let flushed = if read.is_pending() && !to.write_closed { to.poll_flush(cx) } else { Poll::Pending };
            if to.received.closed {
                self.ended_by.get_or_insert(from);
            }
            match (read, flushed) {
                (Poll::Ready(Ok(true)), _) if is_active => self.last_activity = Instant::now(),
                (Poll::Ready(Ok(true)), _) => {}
                (Poll::Ready(Ok(false)), _) => self.read_ended(from, None),
                (Poll::Ready(Err(error)), _) => self.read_ended(from, Some(error)),
                (Poll::Pending, Poll::Ready(Err(error))) => self.write_failed(from.other(), error),
                (Poll::Pending, Poll::Ready(Ok(())) | Poll::Pending) => return Poll::Pending,
            }
        }
    }

    /// A side sends nothing more. If it sent no Close frame, the other side gets one from Callgate.
    fn read_ended(&mut self, side: EndedBy, error: Option<io::Error>) {
        let is_closing = self.is_closing();
        let (this, other) = self.pair(side);
        this.read_closed = true;
        this.write_closed |= error.is_some();
        if !is_closing {
            other.queue_close(&CloseFrames::without(side));
        }
        // TLS without close_notify says no more than a closed connection.
        let error = error.filter(|error| error.kind() != io::ErrorKind::UnexpectedEof);
        self.note_cut(side, error.map_or(CutReason::Unannounced, CutReason::Broken));
    }

    /// The connection to a side is gone. What it sent before, perhaps the reason, may still be there to be read.
    fn write_failed(&mut self, side: EndedBy, error: io::Error) {
        self.pair(side).0.write_closed = true;
        self.note_cut(side, CutReason::Broken(error));
    }

    /// Notes which side ended the call, and why, unless a Close frame explains it. From now on the other side has less time.
    fn note_cut(&mut self, side: EndedBy, why: CutReason) {
        self.ended_by.get_or_insert(side);
        if !self.is_closing() {
            self.cut.get_or_insert(why);
        }
        self.last_activity = Instant::now();
        self.timer.as_mut().reset(self.last_activity);
    }

    fn is_closing(&self) -> bool {
        self.client.received.closed || self.upstream.received.closed
    }

    /// When to check again, or why the call is over.
    fn check_deadlines(&mut self, now: Instant) -> Result<Instant, CutReason> {
        let sides = [&self.client, &self.upstream];
        let closing_timeout = if sides.iter().any(|side| side.write_closed) {
            Some(CLOSE_TIMEOUT)
        } else {
            sides.iter().any(|side| side.read_closed).then_some(HALF_CLOSED_TIMEOUT)
        };
        let mut next = now + MAX_CHECK_INTERVAL;
        if let Some(limit) = self.limits.idle_timeout.into_iter().chain(closing_timeout).min() {
            next = next.min(self.last_activity + limit);
            if now >= next {
                return Err(self.cut.take().unwrap_or(CutReason::Idle));
            }
        }
        if let Some(limit) = self.limits.max_duration {
            next = next.min(self.started + limit);
            if now >= next {
                return Err(CutReason::TooLong);
            }
        }
        if let Some(interval) = self.limits.ping.filter(|_| closing_timeout.is_none() && !self.is_closing()) {
            for side in [&mut self.client, &mut self.upstream] {
                let again = side.check_ping(now, interval, self.limits.ping_timeout);
                next = next.min(again.ok_or(CutReason::Unanswered(side.role))?);
            }
        }
        Ok(next)
    }

    /// A side, and the other.
    fn pair(&mut self, side: EndedBy) -> (&mut Side, &mut Side) {
        match side {
            EndedBy::Client => (&mut self.client, &mut self.upstream),
            EndedBy::Upstream | EndedBy::Gateway => (&mut self.upstream, &mut self.client),
        }
    }

    /// `Ready` when the frames that have begun are complete, after a stop.
    fn poll_frames_complete(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut complete = true;
        for from in [EndedBy::Client, EndedBy::Upstream] {
            let (_, to) = self.pair(from);
            complete &= to.write_closed || to.is_frame_complete() || self.poll_direction(from, cx).is_ready();
        }
        if complete { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Passes on the frames that have begun, and no others. Then it sends Close frames to the sides that are still there, and waits
    /// until they close.
    pub(super) async fn close(&mut self, frames: &CloseFrames) {
        (self.client.stopping, self.upstream.stopping) = (true, true);
        // A frame that does not become complete in time stays so, and its receiver gets no Close frame.
        let _ = timeout(FRAME_TIMEOUT, poll_fn(|cx| self.poll_frames_complete(cx))).await;
        let closed = async { tokio::join!(self.client.close(frames), self.upstream.close(frames)) };
        let _ = timeout(CLOSE_TIMEOUT, closed).await;
    }
}
