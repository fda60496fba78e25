//! Choosing, ejecting and budgets, with numbers.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;

use crate::config::{Ejection, EndpointShare};
use crate::per_worker::WorkerThread;

use super::budget::Budget;
use super::choose::{EndpointCandidate, RoundRobin, least_requests};
use super::ejections::{Ejections, PastEjections};
use super::endpoint_state::EndpointState;
use super::rendezvous::{self, hash};

fn candidates(weights: &[u64]) -> Vec<EndpointCandidate> {
    weights.iter().enumerate().map(|(index, weight)| EndpointCandidate { index, weight: *weight }).collect()
}

fn ejection(failures: u32, max_share: u32) -> Ejection {
    Ejection { failures, time: Duration::from_secs(10), max_time: Duration::from_secs(35), max_share }
}

#[test]
fn an_idle_upstream_is_used_by_weight() {
    let all = candidates(&[1_000, 3_000]);
    let mut chance = fastrand::Rng::with_seed(7);
    let second =
        (0..10_000).filter(|_| least_requests(all.iter().copied(), |_| 0, |n| chance.u64(..n)) == Some(1)).count();
    assert!((7_300..7_700).contains(&second), "{second} of 10000");
}

#[test]
fn the_endpoint_with_fewer_requests_for_its_weight_wins() {
    let draws = |pair: [u64; 2]| {
        let mut left = pair.into_iter();
        move |_: u64| left.next().unwrap()
    };
    // Drawn are 0 and 1, in both orders; the second draw is without the first.
    let (busy, load) = (candidates(&[1_000, 3_000]), |index: usize| [2, 5][index]);
    assert_eq!(least_requests(busy.iter().copied(), load, draws([0, 0])), Some(1), "5/3 is less than 2");
    assert_eq!(least_requests(busy.iter().copied(), load, draws([1_000, 0])), Some(1));
    let (equal, load) = (candidates(&[1_000, 3_000]), |index: usize| [1, 3][index]);
    assert_eq!(least_requests(equal.iter().copied(), load, draws([0, 0])), Some(0), "on a tie the first drawn wins");
    assert_eq!(least_requests([].into_iter(), |_| 0, |_| 0), None);
}

#[test]
fn least_requests_evens_out_what_takes_long() {
    let (mut in_flight, mut chance) = ([0_usize; 4], fastrand::Rng::with_seed(11));
    for _ in 0..4_000 {
        let (all, load) = (candidates(&[1_000; 4]), |index: usize| in_flight[index]);
        let chosen = least_requests(all.iter().copied(), load, |n| chance.u64(..n)).unwrap();
        in_flight[chosen] += 1;
    }
    let (least, most) = (in_flight.iter().min().unwrap(), in_flight.iter().max().unwrap());
    assert!(most - least <= 10, "{in_flight:?}");
}

#[test]
fn round_robin_is_exact_and_interleaved() {
    let round_robin = RoundRobin::new(3);
    let all = candidates(&[5_000, 1_000, 1_000]);
    let order: Vec<usize> = (0..70).map(|_| round_robin.next(all.iter().copied()).unwrap()).collect();
    let count = |index: usize| order.iter().filter(|chosen| **chosen == index).count();
    assert_eq!((count(0), count(1), count(2)), (50, 10, 10));
    assert!(order.windows(6).all(|six| six.contains(&1) || six.contains(&2)), "{order:?}");
    // One leaves: the others alternate.
    let two = &all[1..];
    let order: Vec<usize> = (0..10).map(|_| round_robin.next(two.iter().copied()).unwrap()).collect();
    assert!(order.windows(2).filter(|pair| pair[0] == pair[1]).count() <= 1, "{order:?}");
}

fn owners(endpoints: &[(&str, u32)]) -> BTreeMap<u64, String> {
    let all: Vec<_> = endpoints.iter().enumerate().map(|(i, (name, w))| (i, hash(name.as_bytes()), *w)).collect();
    let owner =
        |key: u64| endpoints[rendezvous::choose(hash(&key.to_be_bytes()), all.iter().copied()).unwrap()].0.to_owned();
    (0..20_000).map(|key| (key, owner(key))).collect()
}

#[test]
fn keys_spread_by_weight_and_only_those_of_a_lost_endpoint_move() {
    let whole = owners(&[("http://a:1", 1), ("http://b:1", 1), ("http://c:1", 2)]);
    let share = |name: &str| whole.values().filter(|owner| *owner == name).count();
    assert!((4_700..5_300).contains(&share("http://a:1")), "{}", share("http://a:1"));
    assert!((4_700..5_300).contains(&share("http://b:1")), "{}", share("http://b:1"));
    let without = owners(&[("http://a:1", 1), ("http://c:1", 2)]);
    for (key, owner) in &whole {
        assert!(owner == "http://b:1" || without[key] == *owner, "{key} moved from {owner}");
    }
    let heirs =
        whole.iter().filter(|(_, owner)| *owner == "http://b:1").filter(|(key, _)| without[key] == "http://a:1");
    let third = heirs.count();
    assert!((1_450..1_900).contains(&third), "{third} of 5000 went to the endpoint with a third of the weight");
    // Another order is the same.
    assert_eq!(whole, owners(&[("http://c:1", 2), ("http://a:1", 1), ("http://b:1", 1)]));
}

#[test]
fn ejections_grow_up_to_their_cap_and_are_forgotten() {
    let mut ejections = Ejections::new(ejection(5, 100), vec![PastEjections::default(); 3]);
    let mut now = 1_000;
    for seconds in [10, 20, 30, 35, 35] {
        assert_eq!(ejections.eject(0, now, 0.0), Some(now + seconds * 1_000));
        assert_eq!(ejections.eject(0, now + 1, 0.0), None, "it is ejected already");
        now += seconds * 1_000;
    }
    // It was out five times; two times of service later, three of them count.
    assert_eq!(ejections.eject(0, now + 20_000, 0.0), Some(now + 20_000 + 35_000));
    assert_eq!(ejections.eject(1, now, 1.0), Some(now + 11_000), "chance lengthens it by a tenth");
}

#[test]
fn the_share_of_ejected_endpoints_is_capped() {
    let mut half = Ejections::new(ejection(5, 50), vec![PastEjections::default(); 5]);
    let out = (0..5).filter(|index| half.eject(*index, 1_000, 0.0).is_some()).count();
    assert_eq!(out, 2, "half of five");
    assert!(half.eject(4, 11_000, 0.0).is_some(), "there is room again");
    let out = |share, endpoints| {
        let mut ejections = Ejections::new(ejection(5, share), vec![PastEjections::default(); endpoints]);
        (0..endpoints).filter(|index| ejections.eject(*index, 1_000, 0.0).is_some()).count()
    };
    assert_eq!((out(100, 3), out(10, 3), out(10, 2), out(100, 1), out(0, 3)), (2, 1, 1, 0, 0));
}

#[test]
fn a_budget_is_the_larger_of_its_two_parts() {
    let budget = Budget::new(20, 10);
    assert_eq!((0..50).filter(|_| budget.try_retry(500)).count(), 10, "without a request ten in a second");
    assert_eq!((0..50).filter(|_| budget.try_retry(1_500)).count(), 10);
    let budget = Budget::new(20, 0);
    for second in 0..10 {
        (0..100).for_each(|_| budget.count_request(second * 1_000));
    }
    assert_eq!((0..500).filter(|_| budget.try_retry(9_000)).count(), 200, "a fifth of ten seconds' requests");
    assert!(!budget.try_retry(9_999));
    // The first second leaves with its hundred requests; the retries were all in the last.
    assert!(!budget.try_retry(10_000));
    (0..1_000).for_each(|_| budget.count_request(10_000));
    assert_eq!((0..500).filter(|_| budget.try_retry(10_000)).count(), 180, "a fifth of 1900, less the 200");
}

#[test]
fn an_endpoint_that_returns_starts_slowly() {
    let endpoint =
        EndpointState::new("http://a:1".into(), EndpointShare { weight: 4, backup: false }, true, Arc::default());
    let slow = Some(Duration::from_secs(30));
    assert_eq!(endpoint.weight(slow, 1), 4_000, "it has always been in service");
    endpoint.live.ejected_until.store(10_000, Ordering::Relaxed);
    assert!(endpoint.is_ejected(9_999) && endpoint.is_available(10_000));
    assert_eq!(endpoint.weight(slow, 10_000), 400);
    assert_eq!(endpoint.weight(slow, 25_000), 2_000);
    assert_eq!((endpoint.weight(slow, 40_000), endpoint.weight(slow, 90_000)), (4_000, 4_000));
    assert_eq!(endpoint.weight(None, 10_000), 4_000);
    endpoint.set_down(true, 50_000);
    assert!(!endpoint.is_available(50_000));
    endpoint.set_down(false, 60_000);
    assert_eq!(endpoint.weight(slow, 75_000), 2_000);
}

/// Requests that begin on one worker and end on another, and those of workers that have ended, are counted as if there were one worker.
#[test]
fn requests_in_flight_are_those_of_all_workers() {
    let share = EndpointShare { weight: 1, backup: false };
    let endpoint = EndpointState::new("http://a:1".into(), share, false, Arc::default());
    let on_worker = |work: &(dyn Fn() + Sync)| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _worker = WorkerThread::register();
                work();
            });
        });
    };
    let held = Mutex::new(Vec::new());
    let begin = |count| (0..count).for_each(|_| held.lock().unwrap().push(endpoint.load().begin()));
    on_worker(&|| begin(1_000));
    begin(10);
    assert_eq!(endpoint.in_flight(), 1_010);
    let end = |count: usize| held.lock().unwrap().truncate(1_010 - count);
    std::thread::scope(|scope| {
        // Another worker goes on meanwhile.
        scope.spawn(|| on_worker(&|| (0..10_000).for_each(|_| drop(endpoint.load().begin()))));
        on_worker(&|| end(500));
    });
    assert_eq!(endpoint.in_flight(), 510);
    end(1_010);
    assert_eq!(endpoint.in_flight(), 0);
}

#[test]
fn a_budget_counts_the_requests_of_all_workers() {
    let budget = Budget::new(20, 0);
    std::thread::scope(|scope| {
        for is_worker in [true, true, true, false, false] {
            let budget = &budget;
            scope.spawn(move || {
                let _worker = is_worker.then(WorkerThread::register);
                for now in 0..10_000 {
                    budget.count_request(now);
                }
            });
        }
    });
    assert_eq!((0..20_000).filter(|_| budget.try_retry(9_999)).count(), 10_000, "a fifth of 50,000");
    assert_eq!((0..20_000).filter(|_| budget.try_retry(30_000)).count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever fails when: never are all endpoints ejected, and never more than the share (or one).
    #[test]
    fn ejection_never_empties(
        endpoints in 1..8_usize,
        share in 0..=100_u32,
        failures in prop::collection::vec((0..8_usize, 0..5_000_u64), 1..200),
    ) {
        let mut ejections = Ejections::new(ejection(1, share), vec![PastEjections::default(); endpoints]);
        let (mut until, mut now) = (vec![0; endpoints], 1);
        for (index, pause) in failures {
            now += pause;
            if let Some(end) = ejections.eject(index % endpoints, now, 0.5) {
                prop_assert!(end > now && end <= now + 38_500);
                until[index % endpoints] = end;
            }
            let out = until.iter().filter(|end| now < **end).count();
            prop_assert!(out < endpoints);
            prop_assert!(out <= (endpoints * share as usize / 100).max(usize::from(share > 0)));
        }
    }

    /// Whenever requests come: retries stay within the budget over any ten seconds, but for the minimum of each.
    #[test]
    fn retries_stay_within_the_budget(asks in prop::collection::vec((0..400_u64, any::<bool>()), 1..400)) {
        let budget = Budget::new(20, 2);
        let (mut requests, mut retries, mut now) = (Vec::new(), Vec::new(), 1_u64);
        for (pause, is_request) in asks {
            now += pause;
            if is_request {
                budget.count_request(now);
                requests.push(now / 1_000);
            }
            if budget.try_retry(now) {
                retries.push(now / 1_000);
            }
            let second = now / 1_000;
            let recent = |all: &[u64]| all.iter().filter(|at| **at + 10 > second).count();
            let this_second = retries.iter().filter(|at| **at == second).count();
            prop_assert!(this_second <= 2 || recent(&retries) * 5 <= recent(&requests));
        }
    }
}
