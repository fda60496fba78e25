//! What the journal keeps, gives out, and gives up.

use super::*;
use crate::config::Limit;

fn limits(window_ms: u32) -> [Limit; 1] {
    [Limit { name: "w".into(), count: 100, window_ms: window_ms.try_into().unwrap() }]
}

fn journal(room: usize) -> (Arc<PendingMerges>, impl Fn(u64) -> Instant) {
    let journal = Arc::new(PendingMerges::of(room, None));
    let epoch = journal.epoch;
    (journal, move |ms| epoch + Duration::from_millis(ms))
}

fn offer(journal: &Arc<PendingMerges>, log: &[u8], now: Instant) -> Offer {
    match journal.claim(log, now) {
        Claim::Offer(offer) => offer,
        Claim::Nothing => panic!("nothing"),
        Claim::Taken(_) => panic!("taken"),
        Claim::Refused => panic!("refused"),
    }
}

fn ages(offer: &Offer, now: Instant) -> Vec<u32> {
    let bytes = offer.ages(now);
    bytes.chunks_exact(4).map(|age| u32::from_le_bytes(age.try_into().unwrap())).collect()
}

#[test]
fn an_offer_stays_as_it_is_until_it_is_settled() {
    let (journal, at) = journal(100);
    journal.write(b"t", &limits(1_000), 2, at(10));
    journal.write(b"t", &limits(1_000), 1, at(5));
    let first = offer(&journal, b"t", at(20));
    let name = first.name().to_vec();
    assert_eq!(ages(&first, at(20)), [10, 10, 15]);
    assert!(matches!(journal.claim(b"t", at(20)), Claim::Taken(_)));
    journal.write(b"t", &limits(1_000), 1, at(21));
    drop(first);
    assert_eq!(journal.len(), 4);
    let again = offer(&journal, b"t", at(30));
    assert_eq!((again.name(), ages(&again, at(30))), (&name[..], vec![20, 20, 25]));
    again.settle();
    assert_eq!((journal.len(), journal.finished()), (1, None));
    let rest = offer(&journal, b"t", at(40));
    assert_ne!(rest.name(), name);
    assert_eq!(ages(&rest, at(40)), [19]);
    rest.settle();
    assert!(journal.is_empty() && journal.logs() == 0);
    assert!(matches!(journal.claim(b"t", at(41)), Claim::Nothing));
    assert_eq!(journal.finished(), Some(Merged { admissions: 4, logs: 1 }));
    assert_eq!(journal.finished(), None);
}

#[test]
fn what_redis_refuses_is_offered_again_in_the_background_alone_for_a_while() {
    let (journal, _) = journal(100);
    let now = Instant::now();
    journal.write(b"t", &limits(60_000), 1, now);
    let first = offer(&journal, b"t", now);
    let name = first.name().to_vec();
    first.refuse();
    assert!(matches!(journal.claim(b"t", now), Claim::Refused));
    let again = journal.claim_some(now + Duration::from_millis(100), true).pop().expect("the background offers it");
    assert_eq!(again.name(), name);
    drop(again);
    // An offer of which nothing is known is no refusal.
    offer(&journal, b"t", Instant::now()).refuse();
    offer(&journal, b"t", Instant::now() + Duration::from_secs(2)).settle();
    assert!(journal.is_empty());
}

#[tokio::test]
async fn who_waits_for_a_claim_is_told_of_its_end() {
    let (journal, at) = journal(100);
    journal.write(b"t", &limits(1_000), 1, at(0));
    let taken = offer(&journal, b"t", at(1));
    let Claim::Taken(mut done) = journal.claim(b"t", at(1)) else { panic!("not taken") };
    tokio::join!(async { assert!(done.changed().await.is_err()) }, async { drop(taken) });
    assert!(matches!(journal.claim(b"t", at(1)), Claim::Offer(_)));
}

#[test]
fn much_is_offered_in_parts_the_oldest_first() {
    let (journal, at) = journal(10_000);
    for ms in 0..2_500 {
        journal.write(b"t", &limits(60_000), 1, at(ms));
    }
    let mut seen = Vec::new();
    while let Claim::Offer(offer) = journal.claim(b"t", at(5_000)) {
        seen.push(ages(&offer, at(5_000)));
        offer.settle();
    }
    assert_eq!(seen.iter().map(Vec::len).collect::<Vec<_>>(), [1_000, 1_000, 500]);
    assert_eq!((seen[0][999], seen[0][0], seen[2][0]), (5_000, 4_001, 2_501));
}

#[test]
fn the_background_gets_each_log_once_and_not_too_many() {
    let (journal, at) = journal(10_000);
    for token in 0..100 {
        journal.write(token.to_string().as_bytes(), &limits(60_000), 1, at(token));
    }
    let (first, none) = (journal.claim_some(at(100), true), journal.claim_some(at(105), true));
    let (second, rest) = (journal.claim_some(at(110), true), journal.claim_some(at(111), false));
    assert_eq!((first.len(), none.len(), second.len(), rest.len()), (32, 0, 32, 32));
    let mut logs: Vec<Vec<u8>> = first.iter().chain(&second).chain(&rest).map(|offer| offer.log().to_owned()).collect();
    logs.sort();
    logs.dedup();
    assert_eq!(logs.len(), 96);
    drop((second, rest));
    first.into_iter().for_each(Offer::settle);
    // What was put back comes again.
    let mut left = 0;
    loop {
        let some = journal.claim_some(at(1_000), false);
        if some.is_empty() {
            break;
        }
        left += some.len();
        some.into_iter().for_each(Offer::settle);
    }
    assert_eq!((left, journal.len()), (68, 0));
}

#[test]
fn what_no_window_sees_is_not_offered() {
    let (journal, at) = journal(100);
    journal.write(b"t", &limits(1_000), 3, at(0));
    journal.write(b"t", &limits(1_000), 1, at(500));
    let seen = offer(&journal, b"t", at(1_000));
    assert_eq!((ages(&seen, at(1_000)), journal.len()), (vec![500], 1));
    drop(seen);
    journal.write(b"u", &limits(1_000), 3, at(0));
    assert!(matches!(journal.claim(b"u", at(1_000)), Claim::Nothing));
    assert_eq!((journal.len(), journal.logs()), (1, 1));
}

#[test]
fn a_full_journal_gives_up_what_no_window_sees_and_then_the_oldest() {
    let (journal, at) = journal(160);
    journal.write(b"short", &limits(1_000), 40, at(0));
    for ms in 0..120 {
        journal.write(b"long", &limits(60_000), 1, at(ms));
    }
    assert_eq!(journal.len(), 160);
    let room = || journal.make_room(&mut journal.book(), 1_200);
    assert_eq!((room(), journal.len(), journal.logs()), (0, 120, 1));
    for ms in 120..1_000 {
        journal.write(b"long", &limits(60_000), 1, at(ms));
        assert!(journal.len() <= 160);
    }
    let kept = offer(&journal, b"long", at(1_000));
    let kept = ages(&kept, at(1_000));
    assert!(kept.len() >= 150 && kept.iter().copied().eq(1..=kept.len() as u32), "{kept:?}");
}

#[test]
fn forgets_a_log_but_not_what_is_under_way() {
    let (journal, at) = journal(100);
    journal.write(b"t", &limits(1_000), 3, at(0));
    journal.forget(b"t");
    assert!(journal.is_empty() && journal.logs() == 0);
    journal.write(b"t", &limits(1_000), 3, at(0));
    let under_way = offer(&journal, b"t", at(1));
    journal.write(b"t", &limits(1_000), 2, at(2));
    journal.forget(b"t");
    assert_eq!(journal.len(), 3);
    under_way.settle();
    assert!(journal.is_empty() && journal.logs() == 0);
}
