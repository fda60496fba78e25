//! The deny cache alone, on an invented clock as far as it goes.

use std::num::NonZeroU32;

use futures_util::FutureExt;

use super::super::decision::WindowStatus;
use super::super::{Charge, LimitSubject};
use super::*;
use crate::config::{Limit, Plan, RouteLimits};

const TOKEN: LimitSubject<'_> = LimitSubject { token_id: "t", version: 7 };
const TIMEOUT: Duration = Duration::from_secs(20);

fn limit(count: u32) -> Limit {
    Limit { name: "w".into(), count, window_ms: NonZeroU32::new(5_000).unwrap() }
}

fn plan(count: u32) -> Plan {
    Plan { name: "p".into(), limits: [limit(count)].into(), ..Plan::default() }
}

fn query(plan: &Plan) -> LimitQuery<'_> {
    LimitQuery { subject: TOKEN, plan, charge: 1.into(), is_current: &|| true }
}

fn answer(admitted: bool, used: u32, limit: u32, frees_ms: u64) -> Decision {
    let window = WindowStatus { used, limit, window_ms: 5_000, frees_ms };
    Decision::new(admitted, Source::Redis, 1, 100_000, [window])
}

fn denial(frees_ms: u64) -> Decision {
    answer(false, 3, 3, frees_ms)
}

fn repeated(cache: &DenyCache, query: &LimitQuery<'_>, now: Instant) -> Option<Decision> {
    match cache.look_up(query, now) {
        Lookup::Denied(denial) => Some(denial),
        Lookup::Ask(None) | Lookup::Ask(Some(_)) | Lookup::Wait(_) => None,
    }
}

/// The permission to ask Redis; anything else is a mistake.
async fn recheck<'a>(cache: &'a DenyCache, query: &'a LimitQuery<'a>) -> Recheck<'a> {
    match cache.check(query, TIMEOUT).await {
        CacheAnswer::Ask(recheck) => recheck,
        CacheAnswer::Denied(_) => panic!("denied from memory"),
        CacheAnswer::Unanswered => panic!("waited without an answer"),
    }
}

/// Remembers a denial that has ended just now.
fn has_ended(cache: &DenyCache, query: &LimitQuery<'_>) -> Instant {
    let now = Instant::now();
    cache.remember(query, denial(100_000), now, now);
    now
}

#[test]
fn answers_the_same_query_until_a_slot_is_free() {
    let (cache, plan, sent) = (DenyCache::new(100), plan(3), Instant::now());
    let query = query(&plan);
    let after = |ms| sent + Duration::from_millis(ms);
    cache.remember(&query, denial(100_700), sent, after(5));
    let again = repeated(&cache, &query, after(505)).unwrap();
    assert_eq!(again.source, Source::DenyCache);
    assert_eq!(again.windows(), denial(100_700).windows());
    assert!(repeated(&cache, &query, after(698)).is_some());
    // Redis may have read its clock just before the next millisecond: then the slot is free.
    assert!(repeated(&cache, &query, after(699)).is_none());
}

#[test]
fn after_a_second_one_request_rechecks_and_the_others_are_answered() {
    let (cache, plan, sent) = (DenyCache::new(100), plan(3), Instant::now());
    let query = query(&plan);
    let after = |ms| sent + Duration::from_millis(ms);
    cache.remember(&query, denial(104_300), sent, sent);
    let late = repeated(&cache, &query, after(999)).unwrap().reported().unwrap();
    assert_eq!((late.reset_s, late.retry_after_s), (105, 4));
    assert!(matches!(cache.look_up(&query, after(1_000)), Lookup::Ask(Some(_))));
    let late = repeated(&cache, &query, after(4_298)).unwrap().reported().unwrap();
    assert_eq!((late.reset_s, late.retry_after_s), (105, 1));
    // Not beyond its end.
    assert!(matches!(cache.look_up(&query, after(4_299)), Lookup::Wait(_)));
}

#[test]
fn answers_no_other_query() {
    let (cache, strict, raised, now) = (DenyCache::new(100), plan(3), plan(4), Instant::now());
    let first = query(&strict);
    let [own, other] = ["own", "other"].map(|route| RouteLimits { route: route.into(), limits: [limit(3)].into() });
    let [own, other] = [&own, &other].map(|own| Charge { limits: Some(own), ..1.into() });
    cache.remember(&first, denial(100_900), now, now);
    for query in [
        LimitQuery { plan: &raised, ..first },
        LimitQuery { charge: 2.into(), ..first },
        LimitQuery { charge: own, ..first },
        LimitQuery { subject: LimitSubject { version: 8, ..TOKEN }, ..first },
        LimitQuery { subject: LimitSubject { token_id: "u", ..TOKEN }, ..first },
    ] {
        assert!(matches!(cache.look_up(&query, now), Lookup::Ask(None)));
    }
    assert!(repeated(&cache, &first, now).is_some());
    // Several are remembered of one token.
    cache.remember(&LimitQuery { charge: own, ..first }, denial(100_900), now, now);
    assert!(matches!(cache.look_up(&LimitQuery { charge: other, ..first }, now), Lookup::Ask(None)));
    assert!(repeated(&cache, &LimitQuery { charge: own, ..first }, now).is_some());
    assert!(repeated(&cache, &first, now).is_some());
    for cost in 10..200 {
        cache.remember(&LimitQuery { charge: cost.into(), ..first }, denial(100_900), now, now);
    }
    assert_eq!(cache.tokens.with("t", |denials| denials.len()), Some(MAX_DENIALS));
    cache.forget("t");
    assert!(repeated(&cache, &LimitQuery { charge: 99.into(), ..first }, now).is_none());
}

#[test]
fn a_window_that_never_admits_is_always_a_whole_window_away() {
    let (cache, plan, now) = (DenyCache::new(100), plan(0), Instant::now());
    let query = query(&plan);
    cache.remember(&query, answer(false, 0, 0, 105_000), now, now);
    let later = repeated(&cache, &query, now + Duration::from_millis(400)).unwrap();
    assert_eq!(later.windows()[0].frees_ms, 105_400);
}

#[test]
fn a_repeated_denial_moves_past_times_to_the_present() {
    let windows = [(3, 3, 102_000), (7, 100, 100_300)].map(|(used, limit, frees_ms)| WindowStatus {
        used,
        limit,
        window_ms: 5_000,
        frees_ms,
    });
    let denial = Decision::new(false, Source::Redis, 1, 100_000, windows);
    assert_eq!(denial.lasts_ms(), 1_999);
    let again = denial.repeated(Source::DenyCache, 800);
    assert_eq!(again.windows().iter().map(|window| window.frees_ms).collect::<Vec<_>>(), [102_000, 100_800]);
}

#[tokio::test]
async fn an_admission_to_the_last_slot_denies_what_follows() {
    let (cache, plan) = (DenyCache::new(100), plan(3));
    let query = query(&plan);
    recheck(&cache, &query).await.decided(&answer(true, 2, 3, 104_000), Instant::now());
    assert!(matches!(cache.look_up(&query, Instant::now()), Lookup::Ask(None)));
    let last = recheck(&cache, &query).await;
    let now = Instant::now();
    last.decided(&answer(true, 3, 3, 104_000), now);
    let next = repeated(&cache, &query, now).unwrap();
    assert_eq!((next.admitted, next.windows()[0].used, next.windows()[0].frees_ms), (false, 3, 104_000));
    // What costs more frees later than that: it is asked.
    let dear = LimitQuery { charge: 2.into(), ..query };
    let window = WindowStatus { used: 3, limit: 3, window_ms: 5_000, frees_ms: 104_000 };
    let last = Decision::new(true, Source::Redis, 2, 100_000, [window]);
    recheck(&cache, &dear).await.decided(&last, Instant::now());
    assert!(matches!(cache.look_up(&dear, Instant::now()), Lookup::Ask(None)));
}

#[tokio::test]
async fn a_dear_denial_is_remembered_only_while_nothing_can_change_it() {
    let (cache, plan) = (DenyCache::new(100), plan(6));
    let dear = LimitQuery { charge: 5.into(), ..query(&plan) };
    let denial = |used| {
        let window = WindowStatus { used, limit: 6, window_ms: 5_000, frees_ms: 104_000 };
        Decision::new(false, Source::Redis, 5, 100_000, [window]).until_slots_free([100_800])
    };
    // Cheaper requests are still admitted, and put it off.
    recheck(&cache, &dear).await.decided(&denial(3), Instant::now());
    assert!(matches!(cache.look_up(&dear, Instant::now()), Lookup::Ask(None)));
    let now = Instant::now();
    cache.remember(&dear, denial(6).next_denial().unwrap(), now, now);
    let after = |ms| now + Duration::from_millis(ms);
    assert_eq!(repeated(&cache, &dear, after(798)).unwrap().windows(), denial(6).windows());
    // The oldest request has left.
    assert!(matches!(cache.look_up(&dear, after(799)), Lookup::Ask(Some(_))));
}

#[test]
fn a_flood_over_many_routes_is_remembered_for_each() {
    let (cache, plan, now) = (DenyCache::new(100), plan(3), Instant::now());
    let routes: Vec<_> =
        (0..40).map(|i| RouteLimits { route: i.to_string().into(), limits: [limit(3)].into() }).collect();
    let queries =
        || routes.iter().map(|own| LimitQuery { charge: Charge { limits: Some(own), ..1.into() }, ..query(&plan) });
    queries().for_each(|query| cache.remember(&query, denial(100_900), now, now));
    assert!(queries().all(|query| repeated(&cache, &query, now).is_some()));
}

#[tokio::test]
async fn when_a_denial_ends_one_request_rechecks_and_the_others_wait() {
    let (cache, plan) = (DenyCache::new(100), plan(3));
    let query = query(&plan);
    has_ended(&cache, &query);
    let first = recheck(&cache, &query).await;
    let mut others: Vec<_> = (0..5).map(|_| Box::pin(cache.check(&query, TIMEOUT))).collect();
    assert!(others.iter_mut().all(|other| other.now_or_never().is_none()));
    first.decided(&denial(104_000), Instant::now());
    for other in others {
        assert!(matches!(other.await, CacheAnswer::Denied(denial) if denial.windows()[0].frees_ms == 104_000));
    }
}

#[tokio::test]
async fn as_many_requests_recheck_at_once_as_slots_are_free() {
    let (cache, plan) = (DenyCache::new(100), plan(9));
    let query = query(&plan);
    let now = Instant::now();
    cache.remember(&query, answer(false, 9, 9, 100_000), now, now);
    let first = recheck(&cache, &query).await;
    let mut others: Vec<_> = (0..5).map(|_| Box::pin(cache.check(&query, TIMEOUT))).collect();
    assert!(others.iter_mut().all(|other| other.now_or_never().is_none()));
    // Two more slots are free: of those that wait, two ask and three go on waiting.
    first.decided(&answer(true, 7, 9, 104_000), Instant::now());
    let (mut rechecks, mut waiting) = (Vec::new(), Vec::new());
    for mut other in others {
        match (&mut other).now_or_never() {
            Some(CacheAnswer::Ask(recheck)) => rechecks.push(recheck),
            Some(_) => panic!("neither asks nor waits"),
            None => waiting.push(other),
        }
    }
    assert_eq!((rechecks.len(), waiting.len()), (2, 3));
    rechecks.pop().unwrap().decided(&answer(true, 8, 9, 104_000), Instant::now());
    assert!(waiting.iter_mut().all(|other| other.now_or_never().is_none()));
    rechecks.pop().unwrap().decided(&answer(true, 9, 9, 104_000), Instant::now());
    for other in waiting {
        assert!(matches!(other.await, CacheAnswer::Denied(_)));
    }
}

#[tokio::test]
async fn a_request_that_goes_away_passes_its_recheck_on() {
    let (cache, plan) = (DenyCache::new(100), plan(3));
    let query = query(&plan);
    has_ended(&cache, &query);
    let first = recheck(&cache, &query).await;
    let mut second = Box::pin(cache.check(&query, TIMEOUT));
    assert!((&mut second).now_or_never().is_none());
    drop(first);
    assert!(matches!(second.await, CacheAnswer::Ask(_)));
}

#[tokio::test]
async fn no_request_waits_twice_for_a_redis_that_does_not_answer() {
    let (cache, plan) = (DenyCache::new(100), plan(3));
    let query = query(&plan);
    has_ended(&cache, &query);
    let first = recheck(&cache, &query).await;
    let mut second = Box::pin(cache.check(&query, TIMEOUT));
    assert!((&mut second).now_or_never().is_none());
    assert!(matches!(cache.check(&query, Duration::from_millis(5)).await, CacheAnswer::Unanswered), "the timeout ends");
    first.failed();
    assert!(matches!(second.await, CacheAnswer::Unanswered));
    assert!(matches!(cache.look_up(&query, Instant::now()), Lookup::Ask(None)));
}

#[tokio::test]
async fn a_changed_record_clears_the_cached_denials() {
    let (cache, plan) = (DenyCache::new(100), plan(3));
    let (first, now) = (query(&plan), Instant::now());
    cache.remember(&first, denial(104_000), now, now);
    let other = LimitQuery { charge: 2.into(), ..first };
    recheck(&cache, &other).await.stale();
    assert!(matches!(cache.look_up(&first, now), Lookup::Ask(None)));
}

#[tokio::test]
async fn a_second_after_its_end_a_denial_is_forgotten() {
    let (cache, plan) = (DenyCache::new(100), plan(3));
    let query = query(&plan);
    let ended = has_ended(&cache, &query);
    assert!(matches!(cache.look_up(&query, ended), Lookup::Ask(Some(_))));
    assert!(matches!(cache.look_up(&query, ended), Lookup::Wait(_)));
    assert!(matches!(cache.look_up(&query, ended + MAX_TRUST), Lookup::Ask(None)));
}
