//! Denials that still hold, remembered so that a flood on a used-up token costs Redis at most one call a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::sync::watch;

use super::bounded_map::BoundedMap;
use super::decision::{Decision, Source, numbers};
use super::query::LimitQuery;

/// What this instance can't know (a limit raised elsewhere, a log deleted by hand, a clock that jumped) is wrong for at
/// most so long; and for so long after a denial has ended, no more requests ask at one time than may be admitted.
const MAX_TRUST: Duration = Duration::from_secs(1);
/// Denials remembered of one token: one for each cost, and for each route with limits of its own.
const MAX_DENIALS: usize = 64;

/// Denials of Redis that still hold. One for all workers of a process, of a bounded size.
///
/// A denied request writes nothing, so nothing that any instance does can make room before the window frees a slot: until
/// then, on the monotonic clock from before the query was sent, the same answer is right, and is given without asking.
/// (A request of a higher cost is denied by a window that others may still fill: that is remembered only if the window is
/// full, until its oldest request leaves.) The same goes for a request after the one that took the last slot. After a second one request asks again, and the others
/// are still answered from memory; when the denial has ended, they wait for its answer instead. The windows that deny are
/// reported as they are; what is reported of others is up to a second old.
pub struct DenyCache {
    tokens: BoundedMap<SmallVec<[CachedDenial; 1]>>,
    next_check: AtomicU64,
}

struct CachedDenial {
    version: u64,
    cost: u32,
    /// The route, if it has limits of its own: they deny nothing elsewhere.
    route: Option<Arc<str>>,
    /// Count and window of each limit of the query.
    limits: SmallVec<[(u32, u32); 2]>,
    decision: Decision,
    /// When the answer arrived.
    since: Instant,
    /// Until then every request gets it.
    trusted: Instant,
    /// When the window that denies frees a slot.
    ends: Instant,
    in_flight: Option<InFlightCheck>,
}

/// Requests that ask Redis whether a denial still holds, or what comes after it.
struct InFlightCheck {
    number: u64,
    asking: u32,
    /// So many may ask at one time, because so many may be admitted.
    room: u32,
    /// Wakes the requests that wait when none asks any more; true: Redis gave no answer.
    finished: watch::Sender<bool>,
}

/// What the cache answers to a query.
pub(super) enum CacheAnswer<'a> {
    Denied(Decision),
    /// Another request has just asked, and Redis gave no answer.
    Unanswered,
    /// Redis must be asked.
    Ask(Recheck<'a>),
}

enum Lookup {
    Denied(Decision),
    /// Redis must be asked, in the check of this number if others may wait for the answer.
    Ask(Option<u64>),
    Wait(watch::Receiver<bool>),
}

impl DenyCache {
    /// A cache of at most `tokens` tokens (rounded up to a multiple of 64), at some 300 bytes each.
    #[must_use]
    pub fn new(tokens: usize) -> Self {
        Self { tokens: BoundedMap::new(tokens), next_check: AtomicU64::new(0) }
    }

    /// Forgets a token. To be called when its record, its plan or its log has changed.
    pub fn forget(&self, token_id: &str) {
        self.tokens.remove(token_id);
    }

    /// Answers a query. If another request is asking Redis the same, this waits for that, `timeout` at most.
    pub(super) async fn check<'a>(&'a self, query: &'a LimitQuery<'a>, timeout: Duration) -> CacheAnswer<'a> {
        let mut sent = Instant::now();
        let deadline = sent + timeout;
        loop {
            let mut finished = match self.look_up(query, sent) {
                Lookup::Denied(denial) if query.takes_denial() => return CacheAnswer::Denied(denial),
                Lookup::Denied(_) => return CacheAnswer::Ask(Recheck { cache: self, query, sent, number: None }),
                Lookup::Ask(number) => return CacheAnswer::Ask(Recheck { cache: self, query, sent, number }),
                Lookup::Wait(finished) => finished,
            };
            // If the sender is gone, another request has an answer.
            let waited = tokio::time::timeout_at(deadline.into(), finished.changed()).await;
            if waited.is_err() || *finished.borrow() {
                return CacheAnswer::Unanswered;
            }
            sent = Instant::now();
        }
    }

    fn look_up(&self, query: &LimitQuery<'_>, now: Instant) -> Lookup {
        let known = self.tokens.with(query.subject.token_id, |denials| {
            let denial = denials.iter_mut().find(|denial| denial.answers(query))?;
            if now < denial.trusted {
                return Some(Lookup::Denied(denial.repeated(now)));
            }
            if now >= denial.ends + MAX_TRUST {
                return None;
            }
            let check = denial.in_flight.get_or_insert_with(|| InFlightCheck {
                number: self.next_check.fetch_add(1, Ordering::Relaxed),
                asking: 0,
                room: 1,
                finished: watch::Sender::new(false),
            });
            if check.asking < check.room {
                check.asking += 1;
                return Some(Lookup::Ask(Some(check.number)));
            }
            let finished = check.finished.subscribe();
            Some(if now < denial.ends { Lookup::Denied(denial.repeated(now)) } else { Lookup::Wait(finished) })
        });
        known.flatten().unwrap_or(Lookup::Ask(None))
    }

    /// Remembers the denial of a query that was `sent` then and whose answer arrived `now`.
    fn remember(&self, query: &LimitQuery<'_>, decision: Decision, sent: Instant, now: Instant) {
        let ends = sent + Duration::from_millis(decision.lasts_ms());
        let denial = CachedDenial {
            version: query.subject.version,
            cost: query.charge.cost,
            route: query.charge.limits.map(|own| own.route.clone()),
            limits: query.limits().map(numbers).collect(),
            decision,
            since: now,
            trusted: ends.min(sent + MAX_TRUST),
            ends,
            in_flight: None,
        };
        let latest_end = |denials: &SmallVec<[CachedDenial; 1]>| denials.iter().map(|denial| denial.ends).max();
        self.tokens.with_entry(query.subject.token_id, SmallVec::new, latest_end, |denials| {
            denials.retain(|known| !known.answers(query) && now < known.ends + MAX_TRUST);
            if denials.len() == MAX_DENIALS {
                denials.remove(0);
            }
            denials.push(denial);
        });
    }

    /// A request of a check has an answer with so much room, or has gone away without one.
    fn finish(&self, query: &LimitQuery<'_>, number: u64, room: Option<u32>) {
        self.tokens.with(query.subject.token_id, |denials| {
            let mut checks = denials.iter_mut().filter_map(|denial| denial.in_flight.as_mut());
            let Some(check) = checks.find(|check| check.number == number) else { return };
            check.asking -= 1;
            check.room = room.unwrap_or(check.room).max(1);
            if check.asking == 0 {
                check.finished.send_replace(false);
            }
        });
    }

    /// Redis gave no answer: the requests that waited don't ask again.
    fn fail(&self, query: &LimitQuery<'_>, number: u64) {
        self.tokens.with(query.subject.token_id, |denials| {
            denials.retain(|denial| match &denial.in_flight {
                Some(check) if check.number == number => {
                    check.finished.send_replace(true);
                    false
                }
                _ => true,
            });
        });
    }
}

impl CachedDenial {
    /// Whether this is the answer to that query, for as long as it holds.
    fn answers(&self, query: &LimitQuery<'_>) -> bool {
        self.version == query.subject.version
            && self.cost == query.charge.cost
            && self.route.as_ref() == query.charge.limits.map(|own| &own.route)
            && self.limits.iter().copied().eq(query.limits().map(numbers))
    }

    fn repeated(&self, now: Instant) -> Decision {
        // Redis read its clock before the answer arrived, so this is rather too little than too much. That errs on the safe
        // side: a client that waits a little too long is admitted then, one that waits too little is not.
        let later_ms = now.saturating_duration_since(self.since).as_millis() as u64;
        self.decision.repeated(Source::DenyCache, later_ms)
    }
}

/// Permission to ask Redis. Dropped without an answer, it passes to the next request.
pub(super) struct Recheck<'a> {
    cache: &'a DenyCache,
    query: &'a LimitQuery<'a>,
    /// When Redis was asked, or earlier.
    sent: Instant,
    number: Option<u64>,
}

impl Recheck<'_> {
    /// Redis answered this, and it arrived `now`.
    pub(super) fn decided(mut self, decision: &Decision, now: Instant) {
        let number = self.number.take();
        if let Some(denial) = decision.next_denial() {
            self.cache.remember(self.query, denial, self.sent, now);
        } else if let Some(number) = number {
            self.cache.finish(self.query, number, Some(decision.room()));
        }
    }

    /// The token's record has changed: nothing that is known of it holds.
    pub(super) fn stale(mut self) {
        self.number = None;
        self.cache.forget(self.query.subject.token_id);
    }

    /// Redis gave no answer.
    pub(super) fn failed(mut self) {
        if let Some(number) = self.number.take() {
            self.cache.fail(self.query, number);
        }
    }
}

impl Drop for Recheck<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.cache.finish(self.query, number, None);
        }
    }
}

#[cfg(test)]
mod tests;
