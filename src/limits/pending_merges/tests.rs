//! What is kept, sent, and dropped.

use super::*;
use crate::config::Limit;

fn limits(window_ms: u32) -> [Limit; 1] {
    [Limit { name: "w".into(), count: 100, window_ms: window_ms.try_into().unwrap() }]
}

fn pending(room: usize) -> (Arc<PendingMerges>, impl Fn(u64) -> Instant) {
    let pending = Arc::new(PendingMerges { max: room, ..PendingMerges::default() });
    let epoch = pending.epoch;
    (pending, move |ms| epoch + Duration::from_millis(ms))
}

fn batch(pending: &Arc<PendingMerges>, log: &[u8], now: Instant) -> Batch {
    match pending.claim(log, now) {
        ClaimResult::Batch(batch) => batch,
        ClaimResult::Nothing => panic!("nothing"),
        ClaimResult::Taken(_) => panic!("taken"),
        ClaimResult::Refused => panic!("refused"),
    }
}

fn ages(batch: &Batch, now: Instant) -> Vec<u32> {
    let bytes = batch.ages(now);
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    let runs = bytes.chunks_exact(8).map(|run| (number(&run[..4]), number(&run[4..])));
    runs.flat_map(|(age, count)| std::iter::repeat_n(age, count as usize)).collect()
}

fn acknowledge(batch: Batch) {
    batch.acknowledge(Duration::ZERO);
}

#[test]
fn a_batch_stays_as_it_is_until_it_is_acknowledged() {
    let (pending, at) = pending(100);
    pending.add(b"t", &limits(1_000), 2, at(10));
    pending.add(b"t", &limits(1_000), 1, at(5));
    let first = batch(&pending, b"t", at(20));
    let name = first.name().to_vec();
    assert_eq!(ages(&first, at(20)), [10, 10, 15]);
    assert!(matches!(pending.claim(b"t", at(20)), ClaimResult::Taken(_)));
    pending.add(b"t", &limits(1_000), 1, at(21));
    drop(first);
    assert_eq!(pending.len(), 4);
    let again = batch(&pending, b"t", at(30));
    assert_eq!((again.name(), ages(&again, at(30))), (&name[..], vec![20, 20, 25]));
    again.acknowledge(Duration::ZERO);
    assert_eq!((pending.len(), pending.take_merged()), (1, None));
    let rest = batch(&pending, b"t", at(40));
    assert_ne!(rest.name(), name);
    assert_eq!(ages(&rest, at(40)), [19]);
    rest.acknowledge(Duration::ZERO);
    assert!(pending.is_empty() && pending.logs() == 0);
    assert!(matches!(pending.claim(b"t", at(41)), ClaimResult::Nothing));
    assert_eq!(pending.take_merged(), Some(Merged { admissions: 4, logs: 1 }));
    assert_eq!(pending.take_merged(), None);
}

#[test]
fn refused_merges_are_sent_again_only_by_the_background_task() {
    let (pending, _) = pending(100);
    let now = Instant::now();
    pending.add(b"t", &limits(60_000), 1, now);
    let first = batch(&pending, b"t", now);
    let name = first.name().to_vec();
    first.refuse();
    assert!(matches!(pending.claim(b"t", now), ClaimResult::Refused));
    let again = pending.claim_some(now + Duration::from_millis(100), true).pop().expect("the background sends it");
    assert_eq!(again.name(), name);
    drop(again);
    // A batch without an answer is no refusal.
    batch(&pending, b"t", Instant::now()).refuse();
    batch(&pending, b"t", Instant::now() + Duration::from_secs(2)).acknowledge(Duration::ZERO);
    assert!(pending.is_empty());
}

#[tokio::test]
async fn a_task_that_waits_for_a_claim_wakes_at_its_end() {
    let (pending, at) = pending(100);
    pending.add(b"t", &limits(1_000), 1, at(0));
    let taken = batch(&pending, b"t", at(1));
    let ClaimResult::Taken(mut done) = pending.claim(b"t", at(1)) else { panic!("not taken") };
    tokio::join!(async { assert!(done.changed().await.is_err()) }, async { drop(taken) });
    assert!(matches!(pending.claim(b"t", at(1)), ClaimResult::Batch(_)));
}

#[test]
fn much_is_sent_in_batches_the_oldest_first() {
    let (pending, at) = pending(10_000);
    for ms in 0..2_500 {
        pending.add(b"t", &limits(60_000), 1, at(ms));
    }
    let mut seen = Vec::new();
    while let ClaimResult::Batch(batch) = pending.claim(b"t", at(5_000)) {
        seen.push(ages(&batch, at(5_000)));
        batch.acknowledge(Duration::ZERO);
    }
    assert_eq!(seen.iter().map(Vec::len).collect::<Vec<_>>(), [1_000, 1_000, 500]);
    assert_eq!((seen[0][999], seen[0][0], seen[2][0]), (5_000, 4_001, 2_501));
}

#[test]
fn the_background_gets_each_log_once_and_not_too_many() {
    let (pending, at) = pending(10_000);
    for token in 0..100 {
        pending.add(token.to_string().as_bytes(), &limits(60_000), 1, at(token));
    }
    let (first, none) = (pending.claim_some(at(100), true), pending.claim_some(at(105), true));
    let (second, rest) = (pending.claim_some(at(110), true), pending.claim_some(at(111), false));
    assert_eq!((first.len(), none.len(), second.len(), rest.len()), (32, 0, 32, 32));
    let mut logs: Vec<Vec<u8>> = first.iter().chain(&second).chain(&rest).map(|batch| batch.log.to_vec()).collect();
    logs.sort();
    logs.dedup();
    assert_eq!(logs.len(), 96);
    drop((second, rest));
    first.into_iter().for_each(acknowledge);
    // What was put back comes again.
    let mut left = 0;
    loop {
        let some = pending.claim_some(at(1_000), false);
        if some.is_empty() {
            break;
        }
        left += some.len();
        some.into_iter().for_each(acknowledge);
    }
    assert_eq!((left, pending.len()), (68, 0));
}

#[test]
fn admissions_outside_every_window_are_not_sent() {
    let (pending, at) = pending(100);
    pending.add(b"t", &limits(1_000), 3, at(0));
    pending.add(b"t", &limits(1_000), 1, at(500));
    let seen = batch(&pending, b"t", at(1_000));
    assert_eq!((ages(&seen, at(1_000)), pending.len()), (vec![500], 1));
    drop(seen);
    pending.add(b"u", &limits(1_000), 3, at(0));
    assert!(matches!(pending.claim(b"u", at(1_000)), ClaimResult::Nothing));
    assert_eq!((pending.len(), pending.logs()), (1, 1));
}

#[test]
fn at_its_bound_it_drops_admissions_outside_every_window_and_then_the_oldest() {
    let (pending, at) = pending(160);
    pending.add(b"short", &limits(1_000), 40, at(0));
    for ms in 0..120 {
        pending.add(b"long", &limits(60_000), 1, at(ms));
    }
    assert_eq!(pending.len(), 160);
    let room = || pending.make_room(&mut pending.lock(), 1_200);
    assert_eq!((room(), pending.len(), pending.logs()), (0, 120, 1));
    for ms in 120..1_000 {
        pending.add(b"long", &limits(60_000), 1, at(ms));
        assert!(pending.len() <= 160);
    }
    let kept = batch(&pending, b"long", at(1_000));
    let kept = ages(&kept, at(1_000));
    assert!(kept.len() >= 150 && kept.iter().copied().eq(1..=kept.len() as u32), "{kept:?}");
}

#[test]
fn forgets_a_log_but_not_a_batch_in_flight() {
    let (pending, at) = pending(100);
    pending.add(b"t", &limits(1_000), 3, at(0));
    pending.forget(b"t");
    assert!(pending.is_empty() && pending.logs() == 0);
    pending.add(b"t", &limits(1_000), 3, at(0));
    let in_flight = batch(&pending, b"t", at(1));
    pending.add(b"t", &limits(1_000), 2, at(2));
    pending.forget(b"t");
    assert_eq!(pending.len(), 3);
    in_flight.acknowledge(Duration::ZERO);
    assert!(pending.is_empty() && pending.logs() == 0);
}

#[test]
fn late_counted_admissions_are_not_sent() {
    let (pending, at) = pending(100);
    let [counted, unknown] = [5, 7].map(|ms| pending.doubt(b"t", &limits(60_000), 2, at(ms)));
    assert_eq!(pending.len(), 4);
    // Redis must not decide before that is known.
    let ClaimResult::Taken(mut settled) = pending.claim(b"t", at(10)) else { panic!("not in doubt") };
    assert!(pending.claim_some(at(10), false).is_empty());
    counted.counted();
    assert!(settled.has_changed().unwrap());
    settled.mark_unchanged();
    assert!(matches!(pending.claim(b"t", at(11)), ClaimResult::Taken(_)));
    drop(unknown);
    assert!(settled.has_changed().unwrap());
    let seen = batch(&pending, b"t", at(17));
    assert_eq!((ages(&seen, at(17)), pending.len()), (vec![10, 10], 2));
    seen.acknowledge(Duration::ZERO);
    pending.doubt(b"u", &limits(60_000), 1, at(20)).counted();
    assert!(pending.is_empty() && pending.logs() == 0);
}

#[test]
fn a_log_in_doubt_is_forgotten_only_as_far_as_it_is_known() {
    let (pending, at) = pending(100);
    let doubt = pending.doubt(b"t", &limits(60_000), 2, at(0));
    pending.add(b"t", &limits(60_000), 3, at(1));
    pending.forget(b"t");
    assert_eq!(pending.len(), 2);
    doubt.counted();
    assert!(pending.is_empty() && pending.logs() == 0);
}

#[test]
fn after_a_slow_merge_redis_gets_a_rest() {
    let (pending, _) = pending(10_000);
    let now = Instant::now();
    for log in [b"t", b"u"] {
        pending.add(log, &limits(60_000), 1, now);
    }
    let slow = batch(&pending, b"t", now);
    pending.add(b"t", &limits(60_000), 1, now);
    slow.acknowledge(Duration::from_secs(2));
    assert!(pending.claim_some(now + Duration::from_secs(1), true).is_empty());
    // A request does not wait.
    batch(&pending, b"u", now).acknowledge(Duration::ZERO);
    assert_eq!(pending.claim_some(now + Duration::from_secs(50), true).len(), 1);
}

#[test]
fn dear_requests_are_sent_in_few_batches_and_a_round_is_bounded() {
    let (pending, at) = pending(200_000);
    for ms in 0..60 {
        pending.add(b"dear", &limits(600_000), 1_000, at(ms));
    }
    let dear = batch(&pending, b"dear", at(100));
    assert_eq!((dear.ages(at(100)).len(), ages(&dear, at(100)).len()), (60 * 8, 60_000));
    dear.acknowledge(Duration::ZERO);
    for log in 0..9u8 {
        (0..900).for_each(|ms| pending.add(&[log], &limits(600_000), 1, at(ms)));
    }
    assert_eq!(pending.claim_some(at(1_000), false).len(), 2);
}
