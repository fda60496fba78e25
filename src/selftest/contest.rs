//! All instances press for the same tokens at once, over and over, until nothing more is admitted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future;

use super::instance::{Instance, PAUSE, on_instances};
use super::judge::{History, OUTLASTS_MS, Verdict};
use crate::config::{Limit, Plan, RedisStore};
use crate::limits::Decision;

/// Deciders of an instance that work at the same time.
pub(super) const DECIDERS: usize = 16;
/// Pressure goes on at least so long: the second limit below slides twice in this time.
const SHORTEST: Duration = Duration::from_millis(2_600);
/// A Redis that needs longer to fill the limits is too slow to say anything.
const LONGEST: Duration = Duration::from_secs(20);

/// Tokens of one plan.
#[derive(Clone)]
pub(super) struct Group {
    pub(super) plan: Arc<Plan>,
    pub(super) tokens: Vec<String>,
}

struct Contestant {
    token: String,
    plan: Arc<Plan>,
    /// Somebody was told that a window which outlasts the contest is full.
    is_full: AtomicBool,
}

/// Lets all instances contend for the tokens of these groups, and judges each group.
pub(super) async fn contend(
    store: RedisStore,
    groups: &[Group],
    stop: Arc<AtomicBool>,
) -> anyhow::Result<Vec<Verdict>> {
    let contestants: Arc<[Contestant]> = groups
        .iter()
        .flat_map(|group| group.tokens.iter().map(|token| (token.clone(), group.plan.clone())))
        .map(|(token, plan)| Contestant { token, plan, is_full: AtomicBool::new(false) })
        .collect();
    let field = contestants.clone();
    let told = on_instances(move |_| press(store.clone(), field.clone(), stop.clone())).await?;

    let mut histories = vec![History::default(); contestants.len()];
    for (history, told) in told.into_iter().flat_map(|told| told.into_iter().enumerate()) {
        histories[history].merge(told);
    }
    let mut histories = histories.into_iter();
    let judge = |group: &Group| {
        let limits: Vec<(u32, u32)> = group.plan.limits.iter().map(|l| (l.count, l.window_ms.get())).collect();
        let mut verdict = Verdict::new(describe(&group.plan.limits));
        histories.by_ref().take(group.tokens.len()).for_each(|history| verdict.add(&limits, history));
        verdict
    };
    Ok(groups.iter().map(judge).collect())
}

/// One instance's part: what its deciders were told, by contestant.
async fn press(store: RedisStore, field: Arc<[Contestant]>, stop: Arc<AtomicBool>) -> anyhow::Result<Vec<History>> {
    let instance = Instance::open(&store).await?;
    let began = Instant::now();
    let is_over = || {
        let all_full = || field.iter().all(|contestant| contestant.is_full.load(Ordering::Relaxed));
        let elapsed = began.elapsed();
        stop.load(Ordering::Relaxed) || elapsed >= LONGEST || (elapsed >= SHORTEST && all_full())
    };
    let decider = async |_| {
        let mut histories = vec![History::default(); field.len()];
        let mut turn = fastrand::usize(..field.len());
        while !is_over() {
            turn = (turn + 1) % field.len();
            let Contestant { token, plan, is_full } = &field[turn];
            match instance.decide(token, plan).await {
                Some(decision) => note(&decision, &mut histories[turn], is_full),
                None => {
                    histories[turn].unanswered += 1;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        histories
    };
    let mut told = vec![History::default(); field.len()];
    for (at, history) in
        future::join_all((0..DECIDERS).map(decider)).await.into_iter().flat_map(|h| h.into_iter().enumerate())
    {
        told[at].merge(history);
    }
    Ok(told)
}

fn note(decision: &Decision, history: &mut History, is_full: &AtomicBool) {
    if decision.admitted {
        let place = decision.windows().last().map_or(0, |longest| longest.used);
        history.admitted.push((decision.clock_ms(), place));
    } else {
        history.refused.push(decision.clock_ms());
        if decision.windows().iter().any(|window| window.window_ms >= OUTLASTS_MS && window.remaining() == 0) {
            is_full.store(true, Ordering::Relaxed);
        }
    }
}

/// `60/1m, 1000/1h`.
fn describe(limits: &[Limit]) -> String {
    let one = |limit: &Limit| {
        let window = humantime::format_duration(limit.window());
        format!("{}/{window}", limit.count)
    };
    limits.iter().map(one).collect::<Vec<_>>().join(", ")
}
