//! Instances that know different plans of one token, as they do while a change of the configuration is rolled out.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use redis::Value;

use super::oracle::{Expected, Oracle};
use super::stores::{Subject, plan, say};

const START_MS: i64 = 1_700_000_000_000;

#[derive(Debug, Clone)]
struct Step {
    /// In thousandths of the longest window; the last one is so many ms instead.
    gap: i64,
    ms: i64,
    /// Whether the request comes to the instance with the longest window.
    longest: bool,
    cost: u32,
}

fn step() -> impl Strategy<Value = Step> {
    let gap = prop_oneof![4 => Just(0i64), 4 => 0..30i64, 2 => 30..400i64, 1 => 400..2_500i64];
    let cost = prop_oneof![8 => Just(1u32), 1 => 2..5u32];
    (gap, 0..3i64, prop::bool::weighted(0.3), cost).prop_map(|(gap, ms, longest, cost)| Step { gap, ms, longest, cost })
}

/// A plan of some windows, the longest of them longer than those of the other.
fn two_plans() -> impl Strategy<Value = [Vec<(u32, u32)>; 2]> {
    let windows =
        prop::collection::btree_set(prop::sample::select(&[1_000u32, 5_000, 20_000, 60_000, 3_600_000][..]), 2..5);
    (windows, prop::collection::vec(1..40u32, 10), any::<u8>(), any::<u8>()).prop_map(
        |(windows, counts, in_long, in_short)| {
            let windows: Vec<u32> = windows.into_iter().collect();
            let (last, others) = windows.split_last().unwrap();
            let some = |bits: u8, at: usize| -> Vec<(u32, u32)> {
                let some = others.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1);
                some.map(|(i, window)| (counts[at + i], *window)).collect()
            };
            let (mut long, mut short) = (some(in_long, 0), some(in_short, 5));
            long.push((counts[4], *last));
            if short.is_empty() {
                short.push((counts[9], others[0]));
            }
            [long, short]
        },
    )
}

/// What a token may know of the past is bounded by its largest limit.
fn clipped(windows: impl Iterator<Item = (u32, u32, u32, i64)>) -> Vec<(u32, u32, u32, i64)> {
    windows.map(|(used, limit, window, frees)| (used.min(limit), limit, window, frees)).collect()
}

/// The instance with the longest window is asked again and again, and decides as if the log had always been its own.
async fn replay(instances: &[Subject; 2], plans: &[Vec<(u32, u32)>; 2], steps: &[Step]) -> Result<(), String> {
    static TOKENS: AtomicUsize = AtomicUsize::new(0);
    let token = format!("chg{:09}", TOKENS.fetch_add(1, Ordering::Relaxed));
    let longest = i64::from(plans[0].last().unwrap().1);
    let mut oracle = Oracle::that_keeps_all();
    let (mut clock, mut used_last) = (START_MS, START_MS);
    for (i, step) in steps.iter().enumerate() {
        let mut longest_asks = step.longest || i == 0;
        clock += step.gap * longest / 1_000 + step.ms;
        if clock - used_last >= longest {
            (clock, longest_asks) = (used_last + longest - 1, true);
        }
        let at = usize::from(!longest_asks);
        let (limits, cost) = (&plans[at], if i == 0 { 1 } else { step.cost });
        let expected = oracle.decide(limits, cost, clock);
        let decision = instances[at].decide(&token, &plan(limits), cost, clock).await;
        if longest_asks {
            used_last = clock;
        }
        let windows = decision.windows().iter().map(|it| (it.used, it.limit, it.window_ms, it.frees_ms as i64));
        let reported = decision.reported();
        let reported =
            reported.map(|it| (it.index, it.limit, it.remaining, it.reset_s as i64, it.retry_after_s as i64));
        let answer = Expected { admitted: decision.admitted, windows: clipped(windows), reported };
        let expected = Expected { windows: clipped(expected.windows.into_iter()), ..expected };
        if answer != expected {
            return Err(format!(
                "step {i} at {}, cost {cost}, limits {limits:?}\n     got {answer:?}\nexpected {expected:?}",
                clock - START_MS
            ));
        }
    }
    Ok(())
}

#[test]
fn a_longer_window_stays_exact_while_another_instance_knows_only_shorter_ones() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let instances = runtime.block_on(async {
        let one = Subject::redis().await;
        [one.beside().await, one]
    });
    let times = std::env::var("CALLGATE_HISTORIES").ok().and_then(|times| times.parse().ok()).unwrap_or(1u32);
    let mut runner = TestRunner::new(Config { cases: 150 * times, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&(two_plans(), prop::collection::vec(step(), 1..300)), |(plans, steps)| {
        runtime.block_on(replay(&instances, &plans, &steps)).map_err(TestCaseError::fail)
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

const HOUR_MS: i64 = 3_600_000;

async fn number(subject: &Subject, words: &str) -> i64 {
    let Subject::Redis { redis, .. } = subject else { unreachable!() };
    match say(redis, words).await {
        Value::Int(number) => number,
        other => panic!("{words}: {other:?}"),
    }
}

#[tokio::test]
async fn a_longer_window_that_nothing_asks_for_is_forgotten_after_its_own_length() {
    for subject in [Subject::redis().await, Subject::memory()] {
        let (old, new) = (plan(&[(100, 60_000), (500, 3_600_000)]), plan(&[(100, 60_000)]));
        for minute in 0..4 {
            for token in ["kept", "forgotten"] {
                assert!(subject.decide(token, &old, 100, START_MS + 60_000 * minute).await.admitted);
            }
        }
        let changed_ms = START_MS + 300_000;
        for token in ["kept", "forgotten"] {
            assert!(subject.decide(token, &new, 1, changed_ms).await.admitted);
        }
        let is_redis = matches!(subject, Subject::Redis { .. });
        if is_redis {
            assert!(number(&subject, "PTTL cg:{kept}:log").await > HOUR_MS);
        }
        // Of its last hour there are the hundred of the fourth minute and what came after that.
        for (token, wait_ms, used) in [("kept", 3_420_000, 103), ("forgotten", HOUR_MS, 1)] {
            assert!(subject.decide(token, &new, 1, changed_ms + wait_ms - 60_000).await.admitted);
            assert!(subject.decide(token, &new, 1, changed_ms + wait_ms).await.admitted);
            let report = subject.peek(token, &old, &[], changed_ms + wait_ms).await;
            assert_eq!(report.windows[1].used, used, "{token}");
        }
        if is_redis {
            let [kept, forgotten] = ["kept", "forgotten"].map(|token| format!("MEMORY USAGE cg:{{{token}}}:log"));
            let (kept, forgotten) = (number(&subject, &kept).await, number(&subject, &forgotten).await);
            assert!(kept > 1_000 && forgotten <= 160, "{kept} {forgotten}");
            assert!(number(&subject, "PTTL cg:{forgotten}:log").await <= 120_000);
        }
    }
}

#[tokio::test]
async fn a_longer_window_keeps_no_more_than_the_largest_limit() {
    for subject in [Subject::redis().await, Subject::memory()] {
        let (old, new) = (plan(&[(10, 1_000), (40, 3_600_000)]), plan(&[(50, 1_000)]));
        assert!(subject.decide("t", &old, 1, START_MS).await.admitted);
        for second in 1..60 {
            for ms in 0..50 {
                assert!(subject.decide("t", &new, 1, START_MS + 1_000 * second + ms).await.admitted);
            }
        }
        let report = subject.peek("t", &old, &[], START_MS + 60_000).await;
        assert_eq!(report.windows[1].used, 50);
        if matches!(subject, Subject::Redis { .. }) {
            let bytes = number(&subject, "MEMORY USAGE cg:{t}:log").await;
            assert!(bytes <= 500, "{bytes}");
        }
    }
}

#[tokio::test]
async fn a_longer_window_counts_at_once_what_the_log_holds() {
    for subject in [Subject::redis().await, Subject::memory()] {
        let (old, new) = (plan(&[(20, 60_000)]), plan(&[(20, 60_000), (30, 3_600_000)]));
        for at in [0, 50_000, 70_000] {
            assert!(subject.decide("t", &old, 10, START_MS + at).await.admitted);
        }
        // The first ten had left the minute when the last came, and are not in the log any more.
        let decision = subject.decide("t", &new, 10, START_MS + 111_000).await;
        assert_eq!(decision.windows().iter().map(|window| window.used).collect::<Vec<_>>(), [20, 30]);
        assert!(!subject.decide("t", &new, 1, START_MS + 180_000).await.admitted);
    }
}
