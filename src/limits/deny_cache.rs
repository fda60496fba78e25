//! Refusals that still stand, remembered so that a flood on a used-up token costs Redis next to nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::decision::{Decision, Source, numbers};
use super::question::Question;
use super::shards::Shards;

/// What this instance can't know (a limit raised elsewhere, a log deleted by hand, a clock that jumped) is wrong for at
/// most so long.
const LONGEST: Duration = Duration::from_secs(1);

/// Refusals of Redis that still stand. One for all workers of a process, of a bounded size.
///
/// A refused request writes nothing, so nothing that any instance does can make room before the window frees a slot: until
/// then, on the monotonic clock from before the question was sent, the same answer is right, and is given without asking.
/// It is remembered only while all of its numbers stand, those of the windows that have room too.
pub struct DenyCache {
    refusals: Shards<Refusal>,
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
    until: Instant,
}

impl DenyCache {
    /// A cache of at most `tokens` refusals (rounded up to a multiple of 64), at some 250 bytes each.
    #[must_use]
    pub fn new(tokens: usize) -> Self {
        Self { refusals: Shards::new(tokens) }
    }

    /// Forgets what it knows of a token. To be called when this instance changes its record, its plan or its log.
    pub fn forget(&self, token_id: &str) {
        self.refusals.remove(token_id);
    }

    /// The refusal of this very question, if it still stands at `now`.
    pub(super) fn answer(&self, question: &Question<'_>, now: Instant) -> Option<Decision> {
        self.refusals.with(question.asker.token_id, |refusal| {
            let stands = now < refusal.until
                && refusal.version == question.asker.version
                && refusal.cost == question.charge.cost
                && refusal.route.as_ref() == question.charge.limits.map(|own| &own.route)
                && refusal.limits.iter().copied().eq(question.limits().map(numbers));
            // Redis's clock was read before the answer arrived, so this is rather too little than too much: who is told to
            // wait a little too long is admitted then, who is told too little is not.
            let later_ms = now.saturating_duration_since(refusal.since).as_millis() as u64;
            stands.then(|| refusal.decision.repeated(Source::DenyCache, later_ms))
        })?
    }

    /// Remembers a refusal. Its numbers stand for `steady_ms` milliseconds from when Redis decided, which was after the
    /// question was `sent`; the answer arrived `now`.
    pub(super) fn remember(
        &self,
        question: &Question<'_>,
        decision: &Decision,
        steady_ms: u32,
        sent: Instant,
        now: Instant,
    ) {
        let until = sent + Duration::from_millis(u64::from(steady_ms)).min(LONGEST);
        if until <= now {
            return;
        }
        let refusal = Refusal {
            version: question.asker.version,
            cost: question.charge.cost,
            route: question.charge.limits.map(|own| own.route.clone()),
            limits: question.limits().map(numbers).collect(),
            decision: decision.clone(),
            since: now,
            until,
        };
        self.refusals.insert(question.asker.token_id, refusal, |known| known.until);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::super::Asker;
    use super::super::decision::Standing;
    use super::*;
    use crate::config::{Limit, Plan};

    const TOKEN: Asker<'_> = Asker { token_id: "t", version: 7 };

    fn plan(count: u32) -> Plan {
        let limit = Limit { name: "w".into(), count, window_ms: NonZeroU32::new(5_000).unwrap() };
        Plan { name: "p".into(), limits: [limit].into(), ..Plan::default() }
    }

    fn refusal(frees_ms: u64) -> Decision {
        let window = Standing { used: 3, limit: 3, window_ms: 5_000, frees_ms };
        Decision::new(false, Source::Redis, 1, 100_000, [window])
    }

    #[test]
    fn answers_the_same_question_until_a_slot_is_free() {
        let (cache, plan, sent) = (DenyCache::new(100), plan(3), Instant::now());
        let question = Question { asker: TOKEN, plan: &plan, charge: 1.into() };
        let after = |ms| sent + Duration::from_millis(ms);
        cache.remember(&question, &refusal(100_700), 700, sent, after(5));
        let again = cache.answer(&question, after(505)).unwrap();
        assert_eq!(again.source, Source::DenyCache);
        assert_eq!(again.windows(), refusal(100_700).windows());
        assert!(cache.answer(&question, after(699)).is_some());
        assert!(cache.answer(&question, after(700)).is_none());
    }

    #[test]
    fn answers_for_a_second_at_most() {
        let (cache, plan, sent) = (DenyCache::new(100), plan(3), Instant::now());
        let question = Question { asker: TOKEN, plan: &plan, charge: 1.into() };
        cache.remember(&question, &refusal(104_300), 4_300, sent, sent);
        let late = cache.answer(&question, sent + Duration::from_millis(999)).unwrap().reported().unwrap();
        assert_eq!((late.reset_s, late.retry_after_s), (105, 4));
        assert!(cache.answer(&question, sent + Duration::from_millis(1_000)).is_none());
    }

    #[test]
    fn answers_no_other_question() {
        let (cache, strict, raised, now) = (DenyCache::new(100), plan(3), plan(4), Instant::now());
        let question = Question { asker: TOKEN, plan: &strict, charge: 1.into() };
        cache.remember(&question, &refusal(100_900), 900, now, now);
        assert!(cache.answer(&Question { plan: &raised, ..question }, now).is_none());
        assert!(cache.answer(&Question { charge: 2.into(), ..question }, now).is_none());
        assert!(cache.answer(&Question { asker: Asker { version: 8, ..TOKEN }, ..question }, now).is_none());
        assert!(cache.answer(&Question { asker: Asker { token_id: "u", ..TOKEN }, ..question }, now).is_none());
        assert!(cache.answer(&question, now).is_some());
        cache.forget("t");
        assert!(cache.answer(&question, now).is_none());
    }

    #[test]
    fn a_window_that_never_admits_is_always_a_whole_window_away() {
        let (cache, plan, now) = (DenyCache::new(100), plan(0), Instant::now());
        let question = Question { asker: TOKEN, plan: &plan, charge: 1.into() };
        let window = Standing { used: 0, limit: 0, window_ms: 5_000, frees_ms: 105_000 };
        cache.remember(&question, &Decision::new(false, Source::Redis, 1, 100_000, [window]), 5_000, now, now);
        let later = cache.answer(&question, now + Duration::from_millis(400)).unwrap();
        assert_eq!(later.windows()[0].frees_ms, 105_400);
    }
}
