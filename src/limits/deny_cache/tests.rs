//! The deny cache alone, on an invented clock as far as it goes.

use std::num::NonZeroU32;

use futures_util::FutureExt;

use super::super::decision::Standing;
use super::super::{Asker, Charge};
use super::*;
use crate::config::{Limit, Plan, RouteLimits};

const TOKEN: Asker<'_> = Asker { token_id: "t", version: 7 };
const PATIENCE: Duration = Duration::from_secs(20);

fn limit(count: u32) -> Limit {
    Limit { name: "w".into(), count, window_ms: NonZeroU32::new(5_000).unwrap() }
}

fn plan(count: u32) -> Plan {
    Plan { name: "p".into(), limits: [limit(count)].into(), ..Plan::default() }
}

fn question(plan: &Plan) -> Question<'_> {
    Question { asker: TOKEN, plan, charge: 1.into(), is_current: &|| true }
}

fn answer(admitted: bool, used: u32, limit: u32, frees_ms: u64) -> Decision {
    let window = Standing { used, limit, window_ms: 5_000, frees_ms };
    Decision::new(admitted, Source::Redis, 1, 100_000, [window])
}

fn refusal(frees_ms: u64) -> Decision {
    answer(false, 3, 3, frees_ms)
}

fn repeated(cache: &DenyCache, question: &Question<'_>, now: Instant) -> Option<Decision> {
    match cache.known(question, now) {
        Known::Refused(refusal) => Some(refusal),
        Known::Nothing | Known::Turn(_) | Known::Wait(_) => None,
    }
}

/// Somebody's turn to ask; anything else is a mistake.
async fn turn<'a>(cache: &'a DenyCache, question: &'a Question<'a>) -> Turn<'a> {
    match cache.look(question, PATIENCE).await {
        Look::Ask(turn) => turn,
        Look::Refused(_) => panic!("refused from memory"),
        Look::Failed => panic!("waited in vain"),
    }
}

/// Remembers a refusal that has ended just now.
fn has_ended(cache: &DenyCache, question: &Question<'_>) {
    let now = Instant::now();
    cache.remember(question, refusal(100_000), now, now);
}

#[test]
fn answers_the_same_question_until_a_slot_is_free() {
    let (cache, plan, sent) = (DenyCache::new(100), plan(3), Instant::now());
    let question = question(&plan);
    let after = |ms| sent + Duration::from_millis(ms);
    cache.remember(&question, refusal(100_700), sent, after(5));
    let again = repeated(&cache, &question, after(505)).unwrap();
    assert_eq!(again.source, Source::DenyCache);
    assert_eq!(again.windows(), refusal(100_700).windows());
    assert!(repeated(&cache, &question, after(699)).is_some());
    assert!(repeated(&cache, &question, after(700)).is_none());
}

#[test]
fn after_a_second_one_asks_and_the_others_are_answered() {
    let (cache, plan, sent) = (DenyCache::new(100), plan(3), Instant::now());
    let question = question(&plan);
    let after = |ms| sent + Duration::from_millis(ms);
    cache.remember(&question, refusal(104_300), sent, sent);
    let late = repeated(&cache, &question, after(999)).unwrap().reported().unwrap();
    assert_eq!((late.reset_s, late.retry_after_s), (105, 4));
    assert!(matches!(cache.known(&question, after(1_000)), Known::Turn(_)));
    let late = repeated(&cache, &question, after(4_299)).unwrap().reported().unwrap();
    assert_eq!((late.reset_s, late.retry_after_s), (105, 1));
    // Not beyond its end.
    assert!(matches!(cache.known(&question, after(4_300)), Known::Wait(_)));
}

#[test]
fn answers_no_other_question() {
    let (cache, strict, raised, now) = (DenyCache::new(100), plan(3), plan(4), Instant::now());
    let first = question(&strict);
    let [own, other] = ["own", "other"].map(|route| RouteLimits { route: route.into(), limits: [limit(3)].into() });
    let [own, other] = [&own, &other].map(|own| Charge { cost: 1, limits: Some(own) });
    cache.remember(&first, refusal(100_900), now, now);
    for question in [
        Question { plan: &raised, ..first },
        Question { charge: 2.into(), ..first },
        Question { charge: own, ..first },
        Question { asker: Asker { version: 8, ..TOKEN }, ..first },
        Question { asker: Asker { token_id: "u", ..TOKEN }, ..first },
    ] {
        assert!(matches!(cache.known(&question, now), Known::Nothing));
    }
    assert!(repeated(&cache, &first, now).is_some());
    // Several are remembered of one token.
    cache.remember(&Question { charge: own, ..first }, refusal(100_900), now, now);
    assert!(matches!(cache.known(&Question { charge: other, ..first }, now), Known::Nothing));
    assert!(repeated(&cache, &Question { charge: own, ..first }, now).is_some());
    assert!(repeated(&cache, &first, now).is_some());
    for cost in 10..100 {
        cache.remember(&Question { charge: cost.into(), ..first }, refusal(100_900), now, now);
    }
    assert_eq!(cache.tokens.with("t", |refusals| refusals.len()), Some(MOST));
    cache.forget("t");
    assert!(repeated(&cache, &Question { charge: 99.into(), ..first }, now).is_none());
}

#[test]
fn a_window_that_never_admits_is_always_a_whole_window_away() {
    let (cache, plan, now) = (DenyCache::new(100), plan(0), Instant::now());
    let question = question(&plan);
    cache.remember(&question, answer(false, 0, 0, 105_000), now, now);
    let later = repeated(&cache, &question, now + Duration::from_millis(400)).unwrap();
    assert_eq!(later.windows()[0].frees_ms, 105_400);
}

#[test]
fn what_has_passed_meanwhile_is_the_present() {
    let windows = [(3, 3, 102_000), (7, 100, 100_300)].map(|(used, limit, frees_ms)| Standing {
        used,
        limit,
        window_ms: 5_000,
        frees_ms,
    });
    let refusal = Decision::new(false, Source::Redis, 1, 100_000, windows);
    assert_eq!(refusal.stands_ms(), 2_000);
    let again = refusal.repeated(Source::DenyCache, 800);
    assert_eq!(again.windows().iter().map(|window| window.frees_ms).collect::<Vec<_>>(), [102_000, 100_800]);
}

#[tokio::test]
async fn an_admission_to_the_last_slot_refuses_what_follows() {
    let (cache, plan) = (DenyCache::new(100), plan(3));
    let question = question(&plan);
    turn(&cache, &question).await.decided(&answer(true, 2, 3, 104_000), Instant::now());
    assert!(matches!(cache.known(&question, Instant::now()), Known::Nothing));
    turn(&cache, &question).await.decided(&answer(true, 3, 3, 104_000), Instant::now());
    let next = repeated(&cache, &question, Instant::now()).unwrap();
    assert_eq!((next.admitted, next.windows()[0].used, next.windows()[0].frees_ms), (false, 3, 104_000));
    // What costs more frees later than that: it is asked.
    let dear = Question { charge: 2.into(), ..question };
    let window = Standing { used: 3, limit: 3, window_ms: 5_000, frees_ms: 104_000 };
    let last = Decision::new(true, Source::Redis, 2, 100_000, [window]);
    turn(&cache, &dear).await.decided(&last, Instant::now());
    assert!(matches!(cache.known(&dear, Instant::now()), Known::Nothing));
}

#[tokio::test]
async fn when_a_refusal_has_ended_one_asks_and_the_others_wait_for_the_answer() {
    let (cache, plan) = (DenyCache::new(100), plan(3));
    let question = question(&plan);
    has_ended(&cache, &question);
    let first = turn(&cache, &question).await;
    let mut others: Vec<_> = (0..5).map(|_| Box::pin(cache.look(&question, PATIENCE))).collect();
    assert!(others.iter_mut().all(|other| other.now_or_never().is_none()));
    first.decided(&refusal(104_000), Instant::now());
    for other in others {
        assert!(matches!(other.await, Look::Refused(refusal) if refusal.windows()[0].frees_ms == 104_000));
    }
}

#[tokio::test]
async fn as_many_ask_at_one_time_as_there_is_room_for() {
    let (cache, plan) = (DenyCache::new(100), plan(9));
    let question = question(&plan);
    let now = Instant::now();
    cache.remember(&question, answer(false, 9, 9, 100_000), now, now);
    let first = turn(&cache, &question).await;
    let mut others: Vec<_> = (0..5).map(|_| Box::pin(cache.look(&question, PATIENCE))).collect();
    assert!(others.iter_mut().all(|other| other.now_or_never().is_none()));
    // Two more slots are free: of those that wait, two ask and three go on waiting.
    first.decided(&answer(true, 7, 9, 104_000), Instant::now());
    let (mut turns, mut waiting) = (Vec::new(), Vec::new());
    for mut other in others {
        match (&mut other).now_or_never() {
            Some(Look::Ask(turn)) => turns.push(turn),
            Some(_) => panic!("neither asks nor waits"),
            None => waiting.push(other),
        }
    }
    assert_eq!((turns.len(), waiting.len()), (2, 3));
    turns.pop().unwrap().decided(&answer(true, 8, 9, 104_000), Instant::now());
    assert!(waiting.iter_mut().all(|other| other.now_or_never().is_none()));
    turns.pop().unwrap().decided(&answer(true, 9, 9, 104_000), Instant::now());
    for other in waiting {
        assert!(matches!(other.await, Look::Refused(_)));
    }
}

#[tokio::test]
async fn whose_turn_it_is_hands_over_when_it_goes_away() {
    let (cache, plan) = (DenyCache::new(100), plan(3));
    let question = question(&plan);
    has_ended(&cache, &question);
    let first = turn(&cache, &question).await;
    let mut second = Box::pin(cache.look(&question, PATIENCE));
    assert!((&mut second).now_or_never().is_none());
    drop(first);
    assert!(matches!(second.await, Look::Ask(_)));
}

#[tokio::test]
async fn nobody_waits_twice_for_a_redis_that_does_not_answer() {
    let (cache, plan) = (DenyCache::new(100), plan(3));
    let question = question(&plan);
    has_ended(&cache, &question);
    let first = turn(&cache, &question).await;
    let mut second = Box::pin(cache.look(&question, PATIENCE));
    assert!((&mut second).now_or_never().is_none());
    assert!(matches!(cache.look(&question, Duration::from_millis(5)).await, Look::Failed), "patience ends");
    first.failed();
    assert!(matches!(second.await, Look::Failed));
    assert!(matches!(cache.known(&question, Instant::now()), Known::Nothing));
}

#[tokio::test]
async fn a_changed_record_ends_all_that_was_known() {
    let (cache, plan) = (DenyCache::new(100), plan(3));
    let (first, now) = (question(&plan), Instant::now());
    cache.remember(&first, refusal(104_000), now, now);
    let other = Question { charge: 2.into(), ..first };
    turn(&cache, &other).await.stale();
    assert!(matches!(cache.known(&first, Instant::now()), Known::Nothing));
}

#[tokio::test]
async fn a_second_after_its_end_a_refusal_is_nothing() {
    let (cache, plan) = (DenyCache::new(100), plan(3));
    let question = question(&plan);
    has_ended(&cache, &question);
    assert!(matches!(cache.known(&question, Instant::now()), Known::Turn(_)));
    assert!(matches!(cache.known(&question, Instant::now()), Known::Wait(_)));
    assert!(matches!(cache.known(&question, Instant::now() + LONGEST), Known::Nothing));
}
