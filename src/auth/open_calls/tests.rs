//! Open calls and their ends, by numbers.

use std::time::{Duration, UNIX_EPOCH};

use futures_util::FutureExt;

use super::*;
use crate::tokens::{Date, Record, record_of, test_plans};

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn principal(record: &Record, version: u64) -> Arc<Principal> {
    Arc::new(Principal::of(record, version, &test_plans(), at(0)))
}

fn route(permission: &str) -> Arc<Route> {
    Arc::new(Route { access: RouteAccess::Token(vec![permission.into()]), ..Route::default() })
}

fn told(call: &mut OpenCall) -> Option<Revocation> {
    match call.poll_revoked(&mut Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(why) => Some(why),
        Poll::Pending => None,
    }
}

fn is_empty(calls: &OpenCalls) -> bool {
    calls.shards.iter().all(|table| table.calls.is_empty() && table.ends.is_empty())
}

#[test]
fn calls_end_when_their_time_is_over_and_leave_nothing_behind() {
    let calls = Arc::new(OpenCalls::default());
    let mut record = record_of("secret-token");
    let mut unbounded = calls.open(&principal(&record, 1), &route("calls:read"), 0);
    record.expires_at = Some(Date::new(at(100)));
    let mut bounded = calls.open(&principal(&record, 1), &route("calls:read"), 0);
    calls.expire(at(99));
    assert_eq!((told(&mut bounded), told(&mut unbounded)), (None, None));
    calls.expire(at(100));
    assert_eq!((told(&mut bounded), told(&mut unbounded)), (Some(Revocation::Expired), None));
    assert_eq!(told(&mut bounded), None, "it is told once");
    drop((bounded, unbounded));
    assert!(is_empty(&calls));
}

#[test]
fn a_changed_record_ends_what_it_no_longer_entitles_to() {
    let calls = Arc::new(OpenCalls::default());
    let mut record = record_of("secret-token");
    let mut reads = calls.open(&principal(&record, 1), &route("calls:read"), 0);
    let mut writes = calls.open(&principal(&record, 1), &route("calls:write"), 0);
    record.permissions = vec!["calls:read".into()];
    record.expires_at = Some(Date::new(at(100)));
    let changed = principal(&record, 2);
    calls.judge("abc", at(0), |_| Ok(changed.clone()));
    assert_eq!((told(&mut reads), told(&mut writes)), (None, Some(Revocation::Permission)));
    assert_eq!(calls.tokens(), BTreeMap::from([("abc".into(), vec![2])]));
    // The new end counts.
    calls.expire(at(100));
    assert_eq!(told(&mut reads), Some(Revocation::Expired));
}

#[test]
fn refusals_end_calls_and_outages_do_not() {
    for (reason, why) in [
        (Reason::Revoked, Revocation::Revoked),
        (Reason::Disabled, Revocation::Disabled),
        (Reason::Expired, Revocation::Expired),
        (Reason::Unknown, Revocation::Gone),
    ] {
        let calls = Arc::new(OpenCalls::default());
        let mut call = calls.open(&principal(&record_of("secret-token"), 1), &route("calls:read"), 0);
        calls.judge_all(at(0), |_| Err(Refusal::Unavailable.into()));
        calls.judge("other", at(0), |_| Err(Refusal::Invalid(reason).into()));
        assert_eq!(told(&mut call), None);
        calls.judge_all(at(0), |_| Err(Refusal::Invalid(reason).into()));
        assert_eq!(told(&mut call), Some(why));
    }
}

#[tokio::test]
async fn a_call_that_begins_while_its_token_is_announced_is_checked_again() {
    let calls = Arc::new(OpenCalls::default());
    let principal = principal(&record_of("secret-token"), 1);
    let before = calls.era();
    // It has no calls yet.
    calls.announce("abc");
    let now = calls.era();
    let _late = calls.open(&principal, &route("calls:read"), now);
    assert!(calls.rechecks.next().now_or_never().is_none(), "it was looked up after the announcement");
    let _early = calls.open(&principal, &route("calls:read"), before);
    assert_eq!(calls.rechecks.next().await, BTreeSet::from(["abc".into()]));
    calls.announce("abc");
    assert_eq!(calls.rechecks.next().await, BTreeSet::from(["abc".into()]));
}
