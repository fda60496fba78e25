//! Both ends of a call, joined: what one says the other is told, until it is over or its time is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::client_end::Wire;
use super::end::{Close, CutReason, EndedBy};
use super::side::Side;
use super::{GOODBYE_PATIENCE, TransferStats};
use crate::config::CallLimits;

/// Once one side has said its last, the other gets so long between its own last words.
const HALF_CLOSED_PATIENCE: Duration = Duration::from_secs(10);
/// A call without any limits is looked after so often.
const FAR: Duration = Duration::from_secs(86_400);

/// Two sides that are joined.
pub(super) struct Relay {
    client: Side,
    upstream: Side,
    limits: CallLimits,
    began: Instant,
    /// When something of the sides' own last moved.
    moved: Instant,
    clock: Pin<Box<Sleep>>,
    /// Whether nothing more goes from the client, and from the upstream, to the other.
    over: [bool; 2],
    /// Who closed or failed first.
    first: Option<EndedBy>,
    cut: Option<CutReason>,
}

impl Relay {
    pub(super) fn new(client: Wire, upstream: Wire, limits: CallLimits) -> Self {
        let (now, pinged) = (Instant::now(), limits.ping.is_some());
        let mut relay = Self {
            client: Side::new(client, EndedBy::Client, pinged, now),
            upstream: Side::new(upstream, EndedBy::Upstream, pinged, now),
            limits,
            began: now,
            moved: now,
            clock: Box::pin(sleep(FAR)),
            over: [false; 2],
            first: None,
            cut: None,
        };
        if let Ok(next) = relay.look(now) {
            relay.clock.as_mut().reset(next);
        }
        relay
    }

    /// Callgate, if neither side has ended it.
    pub(super) fn first(&self) -> EndedBy {
        self.first.unwrap_or(EndedBy::Gateway)
    }

    /// What came from the client, and from the upstream.
    pub(super) fn heard(&self) -> [TransferStats; 2] {
        [self.client.heard(&self.upstream), self.upstream.heard(&self.client)]
    }

    /// Passes on what there is, both ways; `Ready` when the call is over, with why, if not by itself.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<CutReason>> {
        loop {
            for from in [EndedBy::Client, EndedBy::Upstream] {
                if !self.over[from as usize] && self.poll_way(from, cx).is_ready() {
                    self.over[from as usize] = true;
                }
            }
            if self.over == [true; 2] {
                return Poll::Ready(self.cut.take());
            }
            ready!(self.clock.as_mut().poll(cx));
            match self.look(Instant::now()) {
                Ok(next) => self.clock.as_mut().reset(next),
                Err(cut) => return Poll::Ready(Some(cut)),
            }
        }
    }

    /// Passes on what one side says; `Ready` when it has said its last, and the other knows, or takes no more.
    fn poll_way(&mut self, from: EndedBy, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let (this, to) = self.pair(from);
            if to.deaf {
                this.drop_waiting();
            } else if let Err(error) = ready!(this.poll_pass(to, cx)) {
                self.takes_no_more(from.other(), error);
                continue;
            }
            if to.is_stopped() && to.is_whole() {
                return Poll::Ready(());
            }
            if this.ended {
                // Its connection may be gone already, and then nobody has to know.
                return if to.deaf { Poll::Ready(()) } else { to.poll_end(cx).map(|_| ()) };
            }
            let before = this.said();
            let heard = this.poll_hear(to, cx);
            // Answers to Callgate's pings keep no call alive, nor does what nobody takes.
            let moves = this.said() > before && !to.deaf;
            let flushed = if heard.is_pending() && !to.deaf { to.poll_flush(cx) } else { Poll::Pending };
            if to.told.is_closed() {
                self.first.get_or_insert(from);
            }
            match (heard, flushed) {
                (Poll::Ready(Ok(true)), _) if moves => self.moved = Instant::now(),
                (Poll::Ready(Ok(true)), _) => {}
                (Poll::Ready(Ok(false)), _) => self.ends(from, None),
                (Poll::Ready(Err(error)), _) => self.ends(from, Some(error)),
                (Poll::Pending, Poll::Ready(Err(error))) => self.takes_no_more(from.other(), error),
                (Poll::Pending, Poll::Ready(Ok(())) | Poll::Pending) => return Poll::Pending,
            }
        }
    }

    /// One side says nothing more. That is news to the other where no Close frame has told it.
    fn ends(&mut self, side: EndedBy, error: Option<io::Error>) {
        let is_closing = self.is_closing();
        let (this, other) = self.pair(side);
        this.ended = true;
        this.deaf |= error.is_some();
        if !is_closing {
            let close = Close::without(side);
            other.say_goodbye(if side == EndedBy::Client { close.to_upstream } else { close.to_client }, close.reason);
        }
        // TLS without its goodbye: nothing is said of it that a closed connection would not say.
        let error = error.filter(|error| error.kind() != io::ErrorKind::UnexpectedEof);
        self.is_cut(side, error.map_or(CutReason::Unannounced, CutReason::Broken));
    }

    /// The connection to one side is gone. What it had said before, perhaps why, may still lie there to be read.
    fn takes_no_more(&mut self, side: EndedBy, error: io::Error) {
        self.pair(side).0.deaf = true;
        self.is_cut(side, CutReason::Broken(error));
    }

    /// Notes who left and why, which is no fault once a Close frame has passed; the other side's patience is shorter from now on.
    fn is_cut(&mut self, side: EndedBy, why: CutReason) {
        self.first.get_or_insert(side);
        if !self.is_closing() {
            self.cut.get_or_insert(why);
        }
        self.moved = Instant::now();
        self.clock.as_mut().reset(self.moved);
    }

    fn is_closing(&self) -> bool {
        self.client.told.is_closed() || self.upstream.told.is_closed()
    }

    /// When to look again, or why the call is over.
    fn look(&mut self, now: Instant) -> Result<Instant, CutReason> {
        let sides = [&self.client, &self.upstream];
        let patience = if sides.iter().any(|side| side.deaf) {
            Some(GOODBYE_PATIENCE)
        } else {
            sides.iter().any(|side| side.ended).then_some(HALF_CLOSED_PATIENCE)
        };
        let mut next = now + FAR;
        if let Some(limit) = self.limits.idle_timeout.into_iter().chain(patience).min() {
            next = next.min(self.moved + limit);
            if now >= next {
                return Err(self.cut.take().unwrap_or(CutReason::Silent));
            }
        }
        if let Some(limit) = self.limits.max_duration {
            next = next.min(self.began + limit);
            if now >= next {
                return Err(CutReason::TooLong);
            }
        }
        if let Some(ping) = self.limits.ping.filter(|_| patience.is_none() && !self.is_closing()) {
            for side in [&mut self.client, &mut self.upstream] {
                let again = side.look_after(now, ping, self.limits.ping_timeout);
                next = next.min(again.ok_or(CutReason::Unanswered(side.who))?);
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

    /// From now on only the frames pass that have begun.
    pub(super) fn stop(&mut self) {
        self.client.stop();
        self.upstream.stop();
    }

    /// `Ready` when they are whole, after a stop.
    pub(super) fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut whole = true;
        for from in [EndedBy::Client, EndedBy::Upstream] {
            let (_, to) = self.pair(from);
            whole &= to.deaf || to.is_whole() || self.poll_way(from, cx).is_ready();
        }
        if whole { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Says goodbye to who is still there.
    pub(super) async fn part(&mut self, close: &Close) {
        tokio::join!(
            self.client.part(close.to_client, close.reason),
            self.upstream.part(close.to_upstream, close.reason)
        );
    }
}
