//! The requests of one connection, in the order in which they are sent and answered.

use std::collections::VecDeque;
use std::task::{Poll, Waker};

use redis::{RedisError, RedisResult, Value};
use tokio::time::Instant;

use crate::store::request::Request;

/// While so many bytes wait for the socket, or so many requests for their answers, further requests wait for room.
pub(super) const MAX_UNSENT: usize = 256 * 1024;
pub(super) const MAX_IN_FLIGHT: usize = 65_536;

const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

/// The requests that wait for an answer. Each has a slot, which it keeps until it has been answered and nobody waits any more.
#[derive(Default)]
pub(super) struct InFlight {
    /// Written, and not yet taken by the driver.
    unsent: Vec<u8>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// The slots of the requests that have no answer yet.
    queue: VecDeque<usize>,
    /// When the driver has to look for deadlines that have passed: never after the next one, if there is any.
    timer: Option<Instant>,
    /// Wakes the driver.
    driver: Option<Waker>,
    broken: Option<RedisError>,
    /// Whether a request found no room.
    is_crowded: bool,
}

/// Where the answer of a request goes.
pub(super) enum Slot {
    Waiting {
        waker: Option<Waker>,
        /// The deadline; `None`: there is none any more.
        ends: Option<Instant>,
    },
    Answered(RedisResult<Value>),
    /// Nobody waits: whatever the answer is, it is dropped.
    Abandoned,
}

impl InFlight {
    /// Writes a request; returns its slot, or `None` if there is no room. On a connection that has broken it is answered at once.
    pub(super) fn add(&mut self, request: &dyn Request, asking: bool, ends: Option<Instant>) -> Option<usize> {
        if let Some(error) = &self.broken {
            let answer = Err(error.clone());
            return Some(self.place(Slot::Answered(answer)));
        }
        if self.unsent.len() >= MAX_UNSENT || self.queue.len() >= MAX_IN_FLIGHT {
            self.is_crowded = true;
            return None;
        }
        let is_first = self.unsent.is_empty();
        if asking {
            // Directly before, for the permission holds for the very next command of the connection.
            self.unsent.extend_from_slice(ASKING);
            let nobody = self.place(Slot::Abandoned);
            self.queue.push_back(nobody);
        }
        request.write(&mut self.unsent);
        let slot = self.place(Slot::Waiting { waker: None, ends });
        self.queue.push_back(slot);
        let is_next = ends.is_some_and(|ends| self.timer.is_none_or(|timer| ends < timer));
        if is_next {
            self.timer = ends;
        }
        if is_first || is_next {
            self.driver.iter().for_each(Waker::wake_by_ref);
        }
        Some(slot)
    }

    /// The answer of a slot, which is free from then on; `None` when it is waited for `in_time` and its deadline has passed.
    pub(super) fn poll(&mut self, slot: usize, in_time: bool, now_waits: &Waker) -> Poll<Option<RedisResult<Value>>> {
        match &mut self.slots[slot] {
            Slot::Waiting { ends: None, .. } if in_time => Poll::Ready(None),
            Slot::Waiting { waker: Some(waker), .. } => {
                waker.clone_from(now_waits);
                Poll::Pending
            }
            Slot::Waiting { waker, .. } => {
                *waker = Some(now_waits.clone());
                Poll::Pending
            }
            Slot::Answered(_) | Slot::Abandoned => match self.release(slot) {
                Slot::Answered(answer) => Poll::Ready(Some(answer)),
                Slot::Waiting { .. } | Slot::Abandoned => unreachable!("a slot is free only when nobody waits"),
            },
        }
    }

    /// Nobody waits for the answer of a slot any more. What was in it is returned to be dropped without the lock.
    #[must_use]
    pub(super) fn abandon(&mut self, slot: usize) -> Slot {
        match &self.slots[slot] {
            Slot::Answered(_) => self.release(slot),
            Slot::Waiting { .. } | Slot::Abandoned => std::mem::replace(&mut self.slots[slot], Slot::Abandoned),
        }
    }

    /// The answer to the first of the requests. One that nobody asked for is ignored.
    pub(super) fn answer(&mut self, answer: RedisResult<Value>, wakers: &mut Vec<Waker>) {
        let Some(slot) = self.queue.pop_front() else { return };
        match std::mem::replace(&mut self.slots[slot], Slot::Answered(answer)) {
            Slot::Waiting { waker, .. } => wakers.extend(waker),
            Slot::Answered(_) | Slot::Abandoned => drop(self.release(slot)),
        }
    }

    /// There will be no answers any more, for this reason.
    pub(super) fn fail(&mut self, why: &RedisError, wakers: &mut Vec<Waker>) {
        let why = self.broken.get_or_insert_with(|| why.clone()).clone();
        self.unsent = Vec::new();
        while !self.queue.is_empty() {
            self.answer(Err(why.clone()), wakers);
        }
    }

    /// When to look for deadlines that have passed.
    pub(super) fn timer(&self) -> Option<Instant> {
        self.timer
    }

    /// Looks for them.
    pub(super) fn expire(&mut self, now: Instant, wakers: &mut Vec<Waker>) {
        self.timer = None;
        for slot in &self.queue {
            if let Slot::Waiting { waker, ends: deadline @ Some(_) } = &mut self.slots[*slot] {
                if deadline.is_some_and(|ends| ends <= now) {
                    *deadline = None;
                    wakers.extend(waker.take());
                } else if self.timer.is_none_or(|timer| deadline.is_some_and(|ends| ends < timer)) {
                    self.timer = *deadline;
                }
            }
        }
    }

    /// Hands over what is to be sent, in exchange for an empty buffer; if there is nothing, `driver` is woken as soon as there is.
    pub(super) fn take_unsent(&mut self, empty: &mut Vec<u8>, driver: &Waker) {
        std::mem::swap(&mut self.unsent, empty);
        match &mut self.driver {
            Some(present) => present.clone_from(driver),
            None => self.driver = Some(driver.clone()),
        }
    }

    /// Whether there is room again for requests that found none.
    pub(super) fn has_room_again(&mut self) -> bool {
        let is_full = self.unsent.len() >= MAX_UNSENT || self.queue.len() >= MAX_IN_FLIGHT;
        !is_full && std::mem::take(&mut self.is_crowded)
    }

    fn place(&mut self, slot: Slot) -> usize {
        match self.free.pop() {
            Some(at) => {
                self.slots[at] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        }
    }

    fn release(&mut self, slot: usize) -> Slot {
        self.free.push(slot);
        std::mem::replace(&mut self.slots[slot], Slot::Abandoned)
    }
}
