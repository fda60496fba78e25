//! Refusals that still stand, remembered so that a flood on a used-up token costs Redis at most one call a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::sync::watch;

use super::decision::{Decision, Source, numbers};
use super::question::Question;
use super::shards::Shards;

/// What this instance can't know (a limit raised elsewhere, a log deleted by hand, a clock that jumped) is wrong for at
/// most so long; and for so long after a refusal has ended, no more requests ask at one time than may be admitted.
const LONGEST: Duration = Duration::from_secs(1);
/// Refusals remembered of one token: one for each cost, and for each route with limits of its own.
const MOST: usize = 8;

/// Refusals of Redis that still stand. One for all workers of a process, of a bounded size.
///
/// A refused request writes nothing, so nothing that any instance does can make room before the window frees a slot: until
/// then, on the monotonic clock from before the question was sent, the same answer is right, and is given without asking.
/// The same goes for a request after the one that took the last slot. After a second one request asks again, and the others
/// are still answered from memory; when the refusal has ended, they wait for its answer instead. The windows that
/// refuse are told as they are; what is told of others is up to a second old.
pub struct DenyCache {
    tokens: Shards<SmallVec<[Refusal; 1]>>,
    /// Numbers for flights.
    flights: AtomicU64,
}

struct Refusal {
    version: u64,
    cost: u32,
    /// The route, if it has limits of its own: they refuse nothing elsewhere.
    route: Option<Arc<str>>,
    /// Count and window of each limit that was asked about.
    limits: SmallVec<[(u32, u32); 2]>,
    decision: Decision,
    /// When the answer arrived.
    since: Instant,
    /// Until then it is given to everybody.
    trusted: Instant,
    /// Then the window that refuses frees a slot.
    ends: Instant,
    /// Who asks again.
    flight: Option<Flight>,
}

/// Requests that ask whether a refusal still stands, or what comes after it.
struct Flight {
    number: u64,
    asking: u32,
    /// So many may ask at one time, because so many may be admitted.
    room: u32,
    /// Tells those who wait to look again when nobody asks any more; true: Redis gave no answer.
    landed: watch::Sender<bool>,
}

/// What is known about a question.
pub(super) enum Look<'a> {
    /// Its answer.
    Refused(Decision),
    /// Another request has just asked, and Redis gave no answer.
    Failed,
    /// Nothing: it is to be asked.
    Ask(Turn<'a>),
}

enum Known {
    Refused(Decision),
    Nothing,
    /// Nothing, and nobody else asks now: this is the number of the flight.
    Turn(u64),
    Wait(watch::Receiver<bool>),
}

impl DenyCache {
    /// A cache of at most `tokens` tokens (rounded up to a multiple of 64), at some 300 bytes each.
    #[must_use]
    pub fn new(tokens: usize) -> Self {
        Self { tokens: Shards::new(tokens), flights: AtomicU64::new(0) }
    }

    /// Forgets what it knows of a token. To be called when its record, its plan or its log has changed.
    pub fn forget(&self, token_id: &str) {
        self.tokens.remove(token_id);
    }

    /// What is known about a question. If the answer is on its way to another request, this waits for it, `patience` at most.
    pub(super) async fn look<'a>(&'a self, question: &'a Question<'a>, patience: Duration) -> Look<'a> {
        let mut sent = Instant::now();
        let ends = sent + patience;
        loop {
            let mut landed = match self.known(question, sent) {
                Known::Refused(refusal) if question.takes_refusal() => return Look::Refused(refusal),
                Known::Refused(_) | Known::Nothing => {
                    return Look::Ask(Turn { cache: self, question, sent, flight: None });
                }
                Known::Turn(number) => return Look::Ask(Turn { cache: self, question, sent, flight: Some(number) }),
                Known::Wait(landed) => landed,
            };
            // If there is nothing to be told any more, somebody has an answer.
            let told = tokio::time::timeout_at(ends.into(), landed.changed()).await;
            if told.is_err() || *landed.borrow() {
                return Look::Failed;
            }
            sent = Instant::now();
        }
    }

    fn known(&self, question: &Question<'_>, now: Instant) -> Known {
        let known = self.tokens.with(question.asker.token_id, |refusals| {
            let refusal = refusals.iter_mut().find(|refusal| refusal.answers(question))?;
            if now < refusal.trusted {
                return Some(Known::Refused(refusal.repeated(now)));
            }
            if now >= refusal.ends + LONGEST {
                return None;
            }
            let flight = refusal.flight.get_or_insert_with(|| Flight {
                number: self.flights.fetch_add(1, Ordering::Relaxed),
                asking: 0,
                room: 1,
                landed: watch::Sender::new(false),
            });
            if flight.asking < flight.room {
                flight.asking += 1;
                return Some(Known::Turn(flight.number));
            }
            let landed = flight.landed.subscribe();
            Some(if now < refusal.ends { Known::Refused(refusal.repeated(now)) } else { Known::Wait(landed) })
        });
        known.flatten().unwrap_or(Known::Nothing)
    }

    /// Remembers a refusal of a question that was `sent` then and whose answer arrived `now`.
    fn remember(&self, question: &Question<'_>, decision: Decision, sent: Instant, now: Instant) {
        let ends = sent + Duration::from_millis(decision.stands_ms());
        let refusal = Refusal {
            version: question.asker.version,
            cost: question.charge.cost,
            route: question.charge.limits.map(|own| own.route.clone()),
            limits: question.limits().map(numbers).collect(),
            decision,
            since: now,
            trusted: ends.min(sent + LONGEST),
            ends,
            flight: None,
        };
        let youngest = |refusals: &SmallVec<[Refusal; 1]>| refusals.iter().map(|refusal| refusal.ends).max();
        self.tokens.with_entry(question.asker.token_id, SmallVec::new, youngest, |refusals| {
            refusals.retain(|known| !known.answers(question) && now < known.ends + LONGEST);
            if refusals.len() == MOST {
                refusals.remove(0);
            }
            refusals.push(refusal);
        });
    }

    /// Somebody of a flight has an answer, or has gone away without one.
    fn land(&self, question: &Question<'_>, number: u64, room: Option<u32>) {
        self.tokens.with(question.asker.token_id, |refusals| {
            let flights = refusals.iter_mut().filter_map(|refusal| refusal.flight.as_mut());
            let Some(flight) = flights.into_iter().find(|flight| flight.number == number) else { return };
            flight.asking -= 1;
            flight.room = room.unwrap_or(flight.room).max(1);
            if flight.asking == 0 {
                flight.landed.send_replace(false);
            }
        });
    }

    /// Redis gave no answer: who waited does not ask in vain once more.
    fn fail(&self, question: &Question<'_>, number: u64) {
        self.tokens.with(question.asker.token_id, |refusals| {
            refusals.retain(|refusal| match &refusal.flight {
                Some(flight) if flight.number == number => {
                    flight.landed.send_replace(true);
                    false
                }
                _ => true,
            });
        });
    }
}

impl Refusal {
    /// Whether this is the answer to that question, for as long as it stands.
    fn answers(&self, question: &Question<'_>) -> bool {
        self.version == question.asker.version
            && self.cost == question.charge.cost
            && self.route.as_ref() == question.charge.limits.map(|own| &own.route)
            && self.limits.iter().copied().eq(question.limits().map(numbers))
    }

    fn repeated(&self, now: Instant) -> Decision {
        // Redis's clock was read before the answer arrived, so this is rather too little than too much: who is told to
        // wait a little too long is admitted then, who is told too little is not.
        let later_ms = now.saturating_duration_since(self.since).as_millis() as u64;
        self.decision.repeated(Source::DenyCache, later_ms)
    }
}

/// A request's turn to ask Redis. Dropped without an answer, it is the next one's.
pub(super) struct Turn<'a> {
    cache: &'a DenyCache,
    question: &'a Question<'a>,
    /// When Redis was asked, or earlier.
    sent: Instant,
    flight: Option<u64>,
}

impl Turn<'_> {
    /// This was the answer, and it arrived `now`.
    pub(super) fn decided(mut self, decision: &Decision, now: Instant) {
        let flight = self.flight.take();
        if let Some(refusal) = decision.next_refusal() {
            self.cache.remember(self.question, refusal, self.sent, now);
        } else if let Some(number) = flight {
            self.cache.land(self.question, number, Some(decision.room()));
        }
    }

    /// The token's record has changed: nothing that is known of it holds.
    pub(super) fn stale(mut self) {
        self.flight = None;
        self.cache.forget(self.question.asker.token_id);
    }

    /// Redis gave no answer.
    pub(super) fn failed(mut self) {
        if let Some(number) = self.flight.take() {
            self.cache.fail(self.question, number);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.flight {
            self.cache.land(self.question, number, None);
        }
    }
}

#[cfg(test)]
mod tests;
