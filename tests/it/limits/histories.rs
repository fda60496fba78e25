//! Random histories of one token, replayed on both stores and judged, answer by answer, by the oracle.
//!
//! `CALLGATE_HISTORIES=20` replays twenty times as many.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use super::oracle::{Expected, Oracle};
use super::stores::{Subject, plan};

const WINDOWS: [u32; 8] = [1_000, 1_500, 2_000, 10_000, 60_000, 3_600_000, 86_400_000, 2_592_000_000];

/// One of several, whatever their number turns out to be.
pub(super) type Pick = u32;

pub(super) fn pick<T>(from: &[T], pick: Pick) -> &T {
    &from[pick as usize % from.len()]
}

#[derive(Debug, Clone)]
struct History {
    start_ms: i64,
    plans: Vec<Vec<(u32, u32)>>,
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
struct Step {
    gap: Gap,
    cost: u32,
    /// The plan changes to this one.
    plan: Option<Pick>,
}

/// How the clock gets from one request to the next.
#[derive(Debug, Clone)]
pub(super) enum Gap {
    /// By so many ms, forwards or backwards.
    By(i64),
    /// To the moment, or a ms beside it, at which some admission leaves some window of the plan.
    Edge { admission: Pick, window: Pick, off: i64 },
    /// To the moment, or a ms before it, that the last answer named.
    AsTold { off: i64 },
}

pub(super) fn limits() -> impl Strategy<Value = Vec<(u32, u32)>> {
    let window = (prop_oneof![1 => Just(0u32), 12 => 1..12u32, 6 => 12..60u32], select(&WINDOWS[..]));
    prop::collection::vec(window, 0..5).prop_map(|mut limits| {
        limits.sort_by_key(|(_, window)| *window);
        limits.dedup_by_key(|(_, window)| *window);
        limits
    })
}

pub(super) fn gap() -> impl Strategy<Value = Gap> {
    prop_oneof![
        8 => Just(Gap::By(0)),
        6 => (1..60i64).prop_map(Gap::By),
        6 => (60..3_000i64).prop_map(Gap::By),
        2 => (3_000..120_000i64).prop_map(Gap::By),
        1 => (3_500_000..7_300_000i64).prop_map(Gap::By),
        1 => (80_000_000..3_000_000_000i64).prop_map(Gap::By),
        1 => (-5_010..0i64).prop_map(Gap::By),
        1 => (-10_000_000..-5_000i64).prop_map(Gap::By),
        6 => (any::<Pick>(), any::<Pick>(), -1..2i64).prop_map(|(admission, window, off)| Gap::Edge { admission, window, off }),
        4 => (-1..1i64).prop_map(|off| Gap::AsTold { off }),
    ]
}

fn history() -> impl Strategy<Value = History> {
    let cost = prop_oneof![12 => Just(1u32), 2 => 2..9u32, 1 => 9..40u32];
    let change = prop_oneof![25 => Just(None), 1 => any::<Pick>().prop_map(Some)];
    let step = (gap(), cost, change).prop_map(|(gap, cost, plan)| Step { gap, cost, plan });
    let start = 1_700_000_000_000i64..1_709_000_000_000;
    (start, prop::collection::vec(limits(), 1..4), prop::collection::vec(step, 1..400))
        .prop_map(|(start_ms, plans, steps)| History { start_ms, plans, steps })
}

/// A long history of a busy token, with logs of thousands of admissions that grow, wrap round and shrink.
fn busy_history(seed: u64, steps: usize) -> History {
    let mut random = fastrand::Rng::with_seed(seed);
    let plans = vec![
        vec![(100, 10_000), (3_000, 3_600_000)],
        vec![(60, 60_000), (1_000, 3_600_000)],
        vec![(40, 2_000), (400, 60_000), (20_000, 86_400_000)],
        vec![(1_500, 3_600_000)],
    ];
    let steps = (0..steps).map(|_| {
        let cost = if random.u8(..10) == 0 { random.u32(1..50) } else { 1 };
        let gap = match random.u16(..1_000) {
            0..300 => Gap::By(0),
            300..800 => Gap::By(random.i64(1..200)),
            800..995 => Gap::Edge { admission: random.u32(..), window: random.u32(..), off: random.i64(-1..2) },
            995..998 => Gap::By(random.i64(100_000..1_000_000)),
            998 => Gap::By(random.i64(3_000_000..100_000_000)),
            _ => Gap::By(random.i64(-20_000..0)),
        };
        let plan = (random.u16(..400) == 0).then(|| random.u32(..));
        Step { gap, cost, plan }
    });
    let steps = steps.collect();
    History { start_ms: 1_700_000_000_000 + (seed as i64 % 5_000_000_000), plans, steps }
}

/// Replays a history; the error says where an answer was wrong.
async fn replay(subject: &Subject, history: &History) -> Result<(), String> {
    static TOKENS: AtomicUsize = AtomicUsize::new(0);
    let token = format!("tok{:09}", TOKENS.fetch_add(1, Ordering::Relaxed));
    let plans: Vec<_> = history.plans.iter().map(|limits| plan(limits)).collect();
    let (mut oracle, mut clock, mut current, mut told) = (Oracle::default(), history.start_ms, 0, None);
    for (i, step) in history.steps.iter().enumerate() {
        let before = clock;
        if let Some(pick) = step.plan {
            current = pick as usize % plans.len();
        }
        let limits = &history.plans[current];
        clock = match step.gap {
            Gap::By(ms) => clock + ms,
            Gap::Edge { admission, window, off } if !oracle.admissions().is_empty() && !limits.is_empty() => {
                let edge = pick(oracle.admissions(), admission) + i64::from(pick(limits, window).1) + off;
                // The first may be long over, the last very far away.
                if edge > clock { edge } else { clock + 1 }
            }
            Gap::AsTold { off } => told.map_or(clock, |frees: i64| frees + off).max(clock),
            Gap::Edge { .. } => clock,
        };
        // A look changes nothing, or what follows would go wrong.
        if step.cost != 1 || i % 7 == 0 {
            let report = subject.peek(&token, &plans[current], clock).await;
            let seen = report.windows.iter();
            let seen = seen.map(|it| (it.used, it.limit, it.next_slot_at as i64, it.next_slot_in_seconds as i64));
            let (seen, expected): (Vec<_>, _) = (seen.collect(), oracle.peek(limits, clock));
            if seen != expected {
                return Err(format!(
                    "step {i} at {clock}, limits {limits:?}\n    seen {seen:?}\nexpected {expected:?}"
                ));
            }
        }
        let expected = oracle.decide(limits, step.cost, clock);
        let decision = subject.decide(&token, &plans[current], step.cost, clock).await;
        let windows = decision.windows().iter().map(|it| (it.used, it.limit, it.window_ms, it.frees_ms as i64));
        let reported = decision.reported();
        let reported =
            reported.map(|it| (it.index, it.limit, it.remaining, it.reset_s as i64, it.retry_after_s as i64));
        let answer = Expected { admitted: decision.admitted, windows: windows.collect(), reported };
        if answer != expected {
            return Err(format!(
                "step {i} at {clock} ({:+}), cost {}, limits {limits:?}\n     got {answer:?}\nexpected {expected:?}",
                clock - before,
                step.cost
            ));
        }
        told = answer.windows.iter().map(|window| window.3).max();
    }
    Ok(())
}

fn replay_many(subject: impl Future<Output = Subject>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let subject = runtime.block_on(subject);
    let times = std::env::var("CALLGATE_HISTORIES").ok().and_then(|times| times.parse().ok()).unwrap_or(1u32);
    let decisions = AtomicUsize::new(0);
    let mut runner = TestRunner::new(Config { cases: 150 * times, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&history(), |history| {
        decisions.fetch_add(history.steps.len(), Ordering::Relaxed);
        runtime.block_on(replay(&subject, &history)).map_err(TestCaseError::fail)
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    for _ in 0..4 * times {
        let seed = fastrand::u64(..);
        let history = busy_history(seed, 7_000);
        decisions.fetch_add(history.steps.len(), Ordering::Relaxed);
        if let Err(error) = runtime.block_on(replay(&subject, &history)) {
            panic!("busy history, seed {seed}: {error}");
        }
    }
    let decisions = decisions.into_inner();
    assert!(decisions >= 50_000, "only {decisions} decisions were judged");
    println!("{decisions} decisions judged");
}

#[test]
fn memory_agrees_with_the_oracle() {
    replay_many(async { Subject::memory() });
}

#[test]
fn redis_agrees_with_the_oracle() {
    replay_many(Subject::redis());
}
