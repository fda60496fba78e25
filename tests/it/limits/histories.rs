//! Random histories of one token, replayed on both stores and judged, answer by answer, by the oracle.
//!
//! `CALLGATE_HISTORIES=20` replays twenty times as many.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use callgate::limits::Charge;

use super::oracle::{Expected, Oracle};
use super::stores::{Subject, plan, route};

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
    /// Limits that routes have of their own.
    routes: Vec<Vec<(u32, u32)>>,
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
struct Step {
    gap: Gap,
    cost: u32,
    /// The plan changes to this one.
    plan: Option<Pick>,
    /// The request takes this route.
    route: Option<Pick>,
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

/// Plans of different windows. (That a limit was raised need not be known at once, and matters when the windows change.)
pub(super) fn plans() -> impl Strategy<Value = Vec<Vec<(u32, u32)>>> {
    prop::collection::vec(limits(), 1..4).prop_map(|mut plans| {
        let windows = |plan: &Vec<(u32, u32)>| plan.iter().map(|(_, window)| *window).collect::<Vec<_>>();
        plans.sort_by_key(windows);
        plans.dedup_by_key(|plan| windows(plan));
        plans
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
    let route = prop_oneof![2 => Just(None), 3 => any::<Pick>().prop_map(Some)];
    let step = (gap(), cost, change, route).prop_map(|(gap, cost, plan, route)| Step { gap, cost, plan, route });
    let routes = limits().prop_filter("no limits", |limits| !limits.is_empty());
    let start = 1_700_000_000_000i64..1_709_000_000_000;
    (start, plans(), prop::collection::vec(routes, 0..3), prop::collection::vec(step, 1..400))
        .prop_map(|(start_ms, plans, routes, steps)| History { start_ms, plans, routes, steps })
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
        let route = (random.u8(..2) == 0).then(|| random.u32(..));
        Step { gap, cost, plan, route }
    });
    let steps = steps.collect();
    let routes = vec![vec![(30, 10_000), (500, 3_600_000)], vec![(200, 60_000)]];
    History { start_ms: 1_700_000_000_000 + (seed as i64 % 5_000_000_000), plans, routes, steps }
}

/// Replays a history; the error says where an answer was wrong.
async fn replay(subject: &Subject, history: &History) -> Result<(), String> {
    static TOKENS: AtomicUsize = AtomicUsize::new(0);
    let token = format!("tok{:09}", TOKENS.fetch_add(1, Ordering::Relaxed));
    let plans: Vec<_> = history.plans.iter().map(|limits| plan(limits)).collect();
    let routes = history.routes.iter().enumerate().map(|(i, limits)| route(&format!("r{i}"), limits));
    let routes: Vec<_> = routes.collect();
    let (mut oracle, mut of_routes) = (Oracle::default(), vec![Oracle::default(); routes.len()]);
    let (mut clock, mut current, mut shown) = (history.start_ms, 0, None);
    for (i, step) in history.steps.iter().enumerate() {
        let before = clock;
        if let Some(pick) = step.plan {
            current = pick as usize % plans.len();
        }
        let limits = &history.plans[current];
        let own = step.route.filter(|_| !routes.is_empty()).map(|route| route as usize % routes.len());
        clock = match step.gap {
            Gap::By(ms) => clock + ms,
            Gap::Edge { admission, window, off } => {
                let (oracle, limits) = match own.filter(|_| admission % 2 == 0) {
                    Some(own) => (&of_routes[own], &history.routes[own]),
                    None => (&oracle, limits),
                };
                if oracle.admissions().is_empty() || limits.is_empty() {
                    clock
                } else {
                    let edge = pick(oracle.admissions(), admission) + i64::from(pick(limits, window).1) + off;
                    // The first may be long over, the last very far away.
                    if edge > clock { edge } else { clock + 1 }
                }
            }
            Gap::AsTold { off } => shown.map_or(clock, |frees: i64| frees + off).max(clock),
        };
        // A look changes nothing, or what follows would go wrong.
        if step.cost != 1 || i % 7 == 0 {
            let report = subject.peek(&token, &plans[current], &routes.iter().collect::<Vec<_>>(), clock).await;
            let seen = report.windows.iter();
            let seen = seen.map(|it| (it.used, it.limit, it.next_slot_at as i64, it.next_slot_in_seconds as i64));
            let of_routes =
                of_routes.iter().zip(&history.routes).flat_map(|(oracle, limits)| oracle.peek(limits, clock));
            let expected: Vec<_> = oracle.peek(limits, clock).into_iter().chain(of_routes).collect();
            let seen: Vec<_> = seen.collect();
            if seen != expected {
                return Err(format!(
                    "step {i} at {clock}, limits {limits:?}\n    seen {seen:?}\nexpected {expected:?}"
                ));
            }
        }
        let mut logs = vec![(&mut oracle, &limits[..])];
        if let Some(own) = own {
            logs.push((&mut of_routes[own], &history.routes[own]));
        }
        let expected = Oracle::decide_on(&mut logs, step.cost, clock);
        let charge = Charge { limits: own.map(|own| &routes[own]), ..step.cost.into() };
        let decision = subject.decide(&token, &plans[current], charge, clock).await;
        let windows = decision.windows().iter().map(|it| (it.used, it.limit, it.window_ms, it.frees_ms as i64));
        let reported = decision.reported();
        let reported =
            reported.map(|it| (it.index, it.limit, it.remaining, it.reset_s as i64, it.retry_after_s as i64));
        let answer = Expected { admitted: decision.admitted, windows: windows.collect(), reported };
        if answer != expected {
            return Err(format!(
                "step {i} at {clock} ({:+}), cost {}, limits {limits:?}, route {own:?}\n     got {answer:?}\nexpected {expected:?}",
                clock - before,
                step.cost
            ));
        }
        shown = answer.windows.iter().map(|window| window.3).max();
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
