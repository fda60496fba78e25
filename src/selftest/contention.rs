//! All instances send requests for the same tokens until nothing more is admitted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::exactness::{LASTING_WINDOW_MS, PlanResult, TokenHistory};
use super::instance::{INSTANCES, TestInstance, on_instances};
use crate::config::{Limit, Plan, RedisStore};
use crate::limits::Decision;

/// Tasks of an instance that decide at the same time.
pub(super) const DECIDERS: usize = 16;
/// In this time, the second limit of the `sliding` plan slides twice.
const MIN_DURATION: Duration = Duration::from_millis(2_600);
/// A Redis that needs longer to fill the limits is too slow for the test.
const MAX_DURATION: Duration = Duration::from_secs(20);

/// Tokens of one plan.
#[derive(Clone)]
pub(super) struct TokenGroup {
    pub(super) plan: Arc<Plan>,
    pub(super) tokens: Vec<String>,
}

struct ContendedToken {
    id: String,
    plan: Arc<Plan>,
    /// A window that outlasts the test has been seen full.
    is_full: AtomicBool,
}

/// Lets all instances contend for the tokens of these groups; returns a result for each group.
pub(super) async fn contend(
    store: &RedisStore,
    groups: &[TokenGroup],
    stop: Arc<AtomicBool>,
) -> anyhow::Result<Vec<PlanResult>> {
    let all = groups.iter().flat_map(|group| group.tokens.iter().map(|id| (id.clone(), group.plan.clone())));
    let tokens: Vec<_> = all.map(|(id, plan)| ContendedToken { id, plan, is_full: AtomicBool::new(false) }).collect();
    let (count, began) = (tokens.len(), Instant::now());
    let seen = on_instances(store, INSTANCES, DECIDERS, async move |instance: &TestInstance| {
        let is_over = || {
            let all_full = || tokens.iter().all(|token| token.is_full.load(Ordering::Relaxed));
            let elapsed = began.elapsed();
            stop.load(Ordering::Relaxed) || elapsed >= MAX_DURATION || (elapsed >= MIN_DURATION && all_full())
        };
        let mut histories = vec![TokenHistory::default(); tokens.len()];
        let mut index = fastrand::usize(..tokens.len());
        while !is_over() {
            index = (index + 1) % tokens.len();
            let ContendedToken { id, plan, is_full } = &tokens[index];
            match instance.decide(id, plan).await {
                Some(decision) => record(&decision, &mut histories[index], is_full),
                None => histories[index].unanswered += 1,
            }
        }
        Ok(histories)
    })
    .await?;

    let mut histories = vec![TokenHistory::default(); count];
    for (merged, history) in seen.into_iter().flat_map(|seen| seen.into_iter().enumerate()) {
        histories[merged].merge(history);
    }
    let mut histories = histories.into_iter();
    let evaluate = |group: &TokenGroup| {
        let limits: Vec<(u32, u32)> = group.plan.limits.iter().map(|l| (l.count, l.window_ms.get())).collect();
        let mut result = PlanResult::new(describe(&group.plan.limits));
        histories.by_ref().take(group.tokens.len()).for_each(|history| result.add(&limits, history));
        result
    };
    Ok(groups.iter().map(evaluate).collect())
}

fn record(decision: &Decision, history: &mut TokenHistory, is_full: &AtomicBool) {
    if decision.admitted {
        let used = decision.windows().last().map_or(0, |longest| longest.used);
        history.admitted.push((decision.decided_ms(), used));
    } else {
        history.refused.push(decision.decided_ms());
        if decision.windows().iter().any(|window| window.window_ms >= LASTING_WINDOW_MS && window.remaining() == 0) {
            is_full.store(true, Ordering::Relaxed);
        }
    }
}

/// `60/1m, 1000/1h`.
fn describe(limits: &[Limit]) -> String {
    let describe = |limit: &Limit| format!("{}/{}", limit.count, humantime::format_duration(limit.window()));
    limits.iter().map(describe).collect::<Vec<_>>().join(", ")
}
