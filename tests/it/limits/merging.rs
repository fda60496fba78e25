//! The merging script against the oracle: a merged log is that of the union of all admissions.

use std::sync::atomic::{AtomicUsize, Ordering};

use callgate::config::Plan;
use callgate::limits::MERGE;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use redis::Value;

use super::histories::{Gap, Pick, gap, pick, plans};
use super::oracle::Oracle;
use super::stores::{Subject, plan, say, set_clock};

const INSTANCES: usize = 3;

#[derive(Debug, Clone)]
struct Step {
    gap: Gap,
    action: Action,
    /// The plan changes to this one.
    plan: Option<Pick>,
}

#[derive(Debug, Clone)]
enum Action {
    /// Redis decides on a request.
    Ask { cost: u32 },
    /// An instance admits some by itself.
    Admit { instance: usize, count: usize },
    /// An instance merges.
    Merge { instance: usize },
    /// The last merge is sent again.
    Repeat,
}

fn step() -> impl Strategy<Value = Step> {
    let action = prop_oneof![
        12 => prop_oneof![8 => Just(1u32), 1 => 2..20u32].prop_map(|cost| Action::Ask { cost }),
        8 => (0..INSTANCES, prop_oneof![6 => 1..2usize, 1 => 2..30usize])
            .prop_map(|(instance, count)| Action::Admit { instance, count }),
        3 => (0..INSTANCES).prop_map(|instance| Action::Merge { instance }),
        1 => Just(Action::Repeat),
    ];
    let change = prop_oneof![25 => Just(None), 1 => any::<Pick>().prop_map(Some)];
    (gap(), action, change).prop_map(|(gap, action, plan)| Step { gap, action, plan })
}

/// One token as several instances use it.
struct Stage<'a> {
    subject: &'a Subject,
    token: String,
    oracle: Oracle,
    /// Redis's clock, and one that never goes back.
    clock: i64,
    steady: i64,
    /// The admissions that each instance has not merged yet, on the steady clock.
    waiting: [Vec<i64>; INSTANCES],
    last: Option<(Vec<u8>, Vec<i64>, bool)>,
}

impl Stage<'_> {
    fn pass(&mut self, gap: &Gap, limits: &[(u32, u32)]) {
        let before = self.clock;
        self.clock += match *gap {
            Gap::By(ms) => ms,
            Gap::Edge { admission, window, off } if !self.oracle.admissions().is_empty() && !limits.is_empty() => {
                let edge = pick(self.oracle.admissions(), admission) + i64::from(pick(limits, window).1) + off;
                (edge - before).max(1)
            }
            Gap::Edge { .. } | Gap::AsTold { .. } => 0,
        };
        self.steady += (self.clock - before).max(0);
    }

    /// Sends the merging script, and says what is wrong with its answer.
    async fn merge(
        &mut self,
        name: Vec<u8>,
        times: Vec<i64>,
        known: bool,
        limits: &[(u32, u32)],
    ) -> Result<(), String> {
        if limits.is_empty() {
            return Ok(());
        }
        let mut ages: Vec<i64> = times.iter().map(|at| (self.steady - at).min(i64::from(u32::MAX))).collect();
        ages.sort_unstable();
        let merged = send(self.subject, &self.token, &name, limits, &ages, self.clock).await;
        let expected = if known { -1 } else { self.oracle.merge(limits, &ages, self.clock) };
        self.last = Some((name, times, known || expected > 0));
        if merged == expected { Ok(()) } else { Err(format!("merged {merged} of {ages:?}, not {expected}")) }
    }

    async fn carry_out(&mut self, action: &Action, plan: &Plan, limits: &[(u32, u32)]) -> Result<(), String> {
        match *action {
            Action::Ask { cost } => {
                let expected = self.oracle.decide(limits, cost, self.clock);
                let decision = self.subject.decide(&self.token, plan, cost, self.clock).await;
                let windows = decision.windows().iter();
                let windows: Vec<_> = windows.map(|it| (it.used, it.limit, it.window_ms, it.frees_ms as i64)).collect();
                if (decision.admitted, &windows) != (expected.admitted, &expected.windows) {
                    return Err(format!("got {} {windows:?}\nexpected {expected:?}", decision.admitted));
                }
            }
            Action::Admit { instance, count } => self.waiting[instance].extend((0..count).map(|_| self.steady)),
            Action::Merge { instance } => {
                let times = std::mem::take(&mut self.waiting[instance]);
                if !times.is_empty() {
                    let name = (0..16).map(|_| fastrand::u8(..)).collect();
                    self.merge(name, times, false, limits).await?;
                }
            }
            Action::Repeat => {
                if let Some((name, times, known)) = self.last.take() {
                    self.merge(name, times, known, limits).await?;
                }
            }
        }
        Ok(())
    }
}

/// Merges by hand, at a moment of Redis's clock, a call that was sent some time ago; `ages` are the youngest first.
async fn send(subject: &Subject, token: &str, name: &[u8], limits: &[(u32, u32)], ages: &[i64], clock: i64) -> i64 {
    let Subject::Redis { redis, .. } = subject else { unreachable!() };
    let shipped = "call('TIME')";
    assert_eq!(MERGE.matches(shipped).count(), 1, "the script asks for the time in one place");
    let by_hand = MERGE.replace(shipped, "call('HMGET', (KEYS[1]:gsub('log$', 'token')), 'seconds', 'micros')");
    let windows = packed(limits);
    // It was sent when the latest admission was at least made; or else the clock was set back on the way.
    let waited = fastrand::i64(-100..=ages.first().copied().unwrap_or(0).min(10_000));
    // Those of one moment may come together or one by one.
    let are_together = fastrand::bool();
    let runs = ages.chunk_by(|a, b| are_together && a == b);
    let runs = runs.flat_map(|run| [(run[0] - waited.max(0)) as u32, run.len() as u32]);
    let ages: Vec<u8> = runs.flat_map(u32::to_le_bytes).collect();
    set_clock(redis, token, clock).await;
    let mut command = redis::cmd("EVAL");
    command.arg(by_hand).arg(2).arg(format!("cg:{{{token}}}:log")).arg(format!("cg:{{{token}}}:merged"));
    match redis.call(command.arg(name).arg(windows).arg(ages).arg(clock - waited)).await.unwrap() {
        Value::Int(merged) => merged,
        other => panic!("{other:?}"),
    }
}

/// The largest limit, then all windows.
fn packed(limits: &[(u32, u32)]) -> Vec<u8> {
    let largest = limits.iter().map(|(limit, _)| *limit).max();
    largest.into_iter().chain(limits.iter().map(|(_, window)| *window)).flat_map(u32::to_le_bytes).collect()
}

async fn replay(subject: &Subject, start: i64, plans: &[Vec<(u32, u32)>], steps: &[Step]) -> Result<(), String> {
    static TOKENS: AtomicUsize = AtomicUsize::new(0);
    let token = format!("mrg{:09}", TOKENS.fetch_add(1, Ordering::Relaxed));
    let (oracle, waiting) = (Oracle::default(), Default::default());
    let mut stage = Stage { subject, token, oracle, clock: start, steady: 0, waiting, last: None };
    let mut limits = &plans[0];
    for (i, step) in steps.iter().enumerate() {
        if let Some(pick) = step.plan {
            limits = &plans[pick as usize % plans.len()];
        }
        stage.pass(&step.gap, limits);
        let done = stage.carry_out(&step.action, &plan(limits), limits).await;
        done.map_err(|why| format!("step {i} at {}, limits {limits:?}, {:?}: {why}", stage.clock, step.action))?;
    }
    Ok(())
}

#[test]
fn merged_logs_agree_with_the_union_of_all_admissions() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let subject = runtime.block_on(Subject::redis());
    let times = std::env::var("CALLGATE_HISTORIES").ok().and_then(|times| times.parse().ok()).unwrap_or(1u32);
    let mut runner = TestRunner::new(Config { cases: 150 * times, failure_persistence: None, ..Config::default() });
    let start = 1_700_000_000_000i64..1_709_000_000_000;
    let history = (start, plans(), prop::collection::vec(step(), 1..300));
    let outcome = runner.run(&history, |(start, plans, steps)| {
        runtime.block_on(replay(&subject, start, &plans, &steps)).map_err(TestCaseError::fail)
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// Thousands of admissions, the logs of several busy instances interleaved.
#[tokio::test]
async fn long_logs_merge_too() {
    let subject = Subject::redis().await;
    let limits = [(500, 60_000), (100_000, 3_600_000)];
    let (plan, mut oracle, mut clock) = (plan(&limits), Oracle::default(), 1_700_000_000_000);
    let (mut random, mut longest) = (fastrand::Rng::with_seed(fastrand::u64(..)), 0);
    for round in 0..12 {
        for _ in 0..random.usize(1..4) {
            // Some are dear requests: many admissions of few moments.
            let (moments, cost) =
                if random.u8(..4) == 0 { (random.usize(1..5), 9_000) } else { (random.usize(1..1_000), 1) };
            let ages = (0..moments).map(|_| random.i64(0..4_000_000));
            let mut ages: Vec<i64> = ages.flat_map(|age| std::iter::repeat_n(age, cost)).collect();
            ages.sort_unstable();
            let merged = send(&subject, "t", &random.u128(..).to_le_bytes(), &limits, &ages, clock).await;
            assert_eq!(merged, oracle.merge(&limits, &ages, clock));
            longest = longest.max(oracle.admissions().len());
        }
        for _ in 0..random.usize(0..60) {
            clock += random.i64(0..40_000);
            let (decision, expected) = (subject.decide("t", &plan, 1, clock).await, oracle.decide(&limits, 1, clock));
            let windows = decision.windows().iter().map(|it| (it.used, it.limit, it.window_ms, it.frees_ms as i64));
            assert_eq!((decision.admitted, windows.collect()), (expected.admitted, expected.windows), "round {round}");
        }
    }
    assert!(longest > 1_000, "{longest}");
}

/// A merged log takes what one takes that was written by decisions, and expires like it.
#[tokio::test]
async fn a_merged_log_is_as_small_as_any() {
    let subject = Subject::redis().await;
    let Subject::Redis { redis, .. } = &subject else { unreachable!() };
    let limits = [(6_000, 60_000), (100_000, 3_600_000)];
    for (count, bar) in [(1, 160), (5, 160), (60, 420), (1_000, 4_400)] {
        let (token, ages) = (format!("m{count}"), vec![7_000; count]);
        assert_eq!(send(&subject, &token, b"a", &limits, &ages, 1_700_000_000_000).await, count as i64);
        let Value::Int(bytes) = say(redis, &format!("MEMORY USAGE cg:{{{token}}}:log")).await else { panic!() };
        let Value::Int(left) = say(redis, &format!("PTTL cg:{{{token}}}:log")).await else { panic!() };
        let Value::Int(names) = say(redis, &format!("PTTL cg:{{{token}}}:merged")).await else { panic!() };
        assert!(bytes <= bar, "{bytes} bytes after {count}");
        assert!([left, names].iter().all(|left| (4_490_000..=4_500_000).contains(left)), "{left} {names}");
    }
}

/// What is taken back leaves the log as if it had never been there.
#[tokio::test]
async fn admissions_are_taken_back_without_a_trace() {
    let subject = Subject::redis().await;
    let Subject::Redis { redis, .. } = &subject else { unreachable!() };
    // Each request has room, in this log and in the one without the odd ones.
    let limits = [(500, 60_000), (100_000, 3_600_000)];
    let (plan, mut random) = (plan(&limits), fastrand::Rng::with_seed(fastrand::u64(..)));
    for round in 0..60 {
        let (token, twin) = (format!("t{round}"), format!("w{round}"));
        let (mut clock, mut odd) = (1_700_000_000_000, Vec::new());
        for _ in 0..random.usize(1..40) {
            clock += random.i64(1..3_000);
            let (is_odd, cost) = (random.u8(..4) == 0, random.u32(1..12));
            let admitted = subject.decide(&token, &plan, cost, clock).await.admitted;
            assert!(admitted);
            if is_odd {
                odd.push((clock, cost));
            } else {
                assert!(subject.decide(&twin, &plan, cost, clock).await.admitted);
            }
        }
        random.shuffle(&mut odd);
        for (at, cost) in odd {
            set_clock(redis, &token, clock).await;
            take_back(redis, &token, &limits, cost, at).await;
        }
        for later in [1, 20_000, 61_000] {
            let [one, other] = [&token, &twin].map(|token| subject.decide(token, &plan, 1, clock + later));
            let (one, other) = (one.await, other.await);
            assert_eq!((one.admitted, one.windows()), (other.admitted, other.windows()), "round {round}");
        }
    }
}

async fn take_back(redis: &callgate::store::Redis, token: &str, limits: &[(u32, u32)], cost: u32, at: i64) {
    let by_hand = MERGE.replace("call('TIME')", "call('HMGET', (KEYS[1]:gsub('log$', 'token')), 'seconds', 'micros')");
    let windows = packed(limits);
    let mut command = redis::cmd("EVAL");
    command.arg(by_hand).arg(2).arg(format!("cg:{{{token}}}:log")).arg(format!("cg:{{{token}}}:merged"));
    command.arg(&fastrand::u128(..).to_le_bytes()).arg(windows).arg("").arg(0).arg(cost).arg(at);
    redis.call(&command).await.unwrap();
}

/// Names are kept until no window could see what they name.
#[tokio::test]
async fn a_merge_is_remembered_for_as_long_as_it_could_be_repeated() {
    let subject = Subject::redis().await;
    let Subject::Redis { redis, .. } = &subject else { unreachable!() };
    let (limits, clock) = ([(60, 60_000)], 1_700_000_000_000);
    let merge = async |name: &[u8], age, clock| send(&subject, "t", name, &limits, &[age], clock).await;
    assert_eq!((merge(b"a", 0, clock).await, merge(b"b", 0, clock).await), (1, 1));
    let later = clock + 59_999;
    assert_eq!(merge(b"c", 0, later).await, 1);
    assert_eq!((merge(b"a", 59_999, later).await, merge(b"b", 59_999, later).await), (-1, -1));
    assert_eq!(merge(b"d", 0, clock + 60_000).await, 1);
    assert_eq!(merge(b"a", 60_000, clock + 60_000).await, 0);
    assert!(matches!(say(redis, "ZCARD cg:{t}:merged").await, Value::Int(2)));
}
