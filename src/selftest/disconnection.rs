//! How decisions go on when the connections of the instances are cut under load.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::future;
use serde::Serialize;

use super::contention::TokenGroup;
use super::instance::{INSTANCES, TestInstance, on_instances};
use super::tested_redis::TestedRedis;
use crate::config::{OnFailure, RedisStore};
use crate::limits::Source;

/// The pause between two decisions of an instance.
const DECISION_INTERVAL: Duration = Duration::from_millis(1);
/// The default of a configuration.
const DEADLINE: Duration = Duration::from_millis(50);
/// Redis is back when it has decided for this long without a failure.
const STEADY: Duration = Duration::from_millis(300);
/// A cut connection is usually replaced within milliseconds.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// The result, over all instances.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct CutResult {
    pub(super) instances: usize,
    /// Connections that Redis closed.
    pub(super) cut: usize,
    /// Instances for which Redis decides again.
    pub(super) back: usize,
    /// Decisions after the cut: `local` of them were made by the instance alone, `failed` of them not at all.
    pub(super) decisions: usize,
    pub(super) local: usize,
    pub(super) failed: usize,
    /// From the cut until Redis decided again, for the slowest instance.
    pub(super) back_after_ms: f64,
    /// The slowest decision after the cut.
    pub(super) slowest_ms: f64,
}

#[derive(Clone, Copy)]
struct TimedDecision {
    began: Instant,
    ended: Instant,
    /// `None` if the decision failed.
    source: Option<Source>,
}

/// What the instances and the task that cuts their connections share.
struct CutState {
    group: TokenGroup,
    stop: Arc<AtomicBool>,
    /// Instances that have begun to decide, or failed to.
    ready: AtomicUsize,
    /// When the connections were cut; `None` if they can't be.
    cut: OnceLock<Option<Instant>>,
}

/// Lets all instances decide, cuts their connections, and waits until Redis decides again.
///
/// # Errors
/// Why connections can't be cut, for example because this user of Redis may not.
pub(super) async fn cut_connections(
    target: &TestedRedis,
    group: TokenGroup,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<CutResult> {
    let store = RedisStore { deadline: DEADLINE, on_failure: OnFailure::Local, ..target.store.clone() };
    let state = Arc::new(CutState { group, stop, ready: AtomicUsize::new(0), cut: OnceLock::new() });
    let shared = state.clone();
    let decisions =
        on_instances(&store, INSTANCES, 1, async move |instance: &TestInstance| decide(instance, &shared).await);
    let (decisions, cut) = tokio::join!(decisions, cut_when_ready(target, &state));
    let (decisions, (at, cut)) = (decisions?, cut?);
    Ok(summarize(&decisions, at, cut))
}

async fn cut_when_ready(target: &TestedRedis, state: &CutState) -> anyhow::Result<(Instant, usize)> {
    let began = Instant::now();
    while state.ready.load(Ordering::Relaxed) < INSTANCES && began.elapsed() < MAX_WAIT {
        tokio::time::sleep(DECISION_INTERVAL).await;
    }
    let at = Instant::now();
    let cut = target.cut(&target.store.namespace).await;
    // Set in any case, so that the instances end.
    let _ = state.cut.set(cut.is_ok().then_some(at));
    Ok((at, cut?))
}

async fn decide(instance: &TestInstance, state: &CutState) -> anyhow::Result<Vec<TimedDecision>> {
    let CutState { group, stop, ready, cut } = state;
    let mut name = redis::cmd("CLIENT");
    name.arg("SETNAME").arg(&**instance.redis.namespace());
    let servers = 0..instance.redis.servers();
    let named = future::try_join_all(servers.map(|server| instance.redis.call_server(server, &name))).await;
    ready.fetch_add(1, Ordering::Relaxed);
    named?;
    let token = &group.tokens[instance.number];
    let (start, mut decisions) = (Instant::now(), Vec::new());
    let mut last_failure = start;
    loop {
        let began = Instant::now();
        let source = instance.decide(token, &group.plan).await.map(|decision| decision.source);
        let ended = Instant::now();
        decisions.push(TimedDecision { began, ended, source });
        if source != Some(Source::Redis) {
            last_failure = ended;
        }
        let is_steady = match cut.get() {
            Some(None) => true,
            Some(Some(at)) => at.max(&last_failure).elapsed() > STEADY,
            None => false,
        };
        if is_steady || stop.load(Ordering::Relaxed) || start.elapsed() > 2 * MAX_WAIT {
            return Ok(decisions);
        }
        tokio::time::sleep(DECISION_INTERVAL).await;
    }
}

fn summarize(instances: &[Vec<TimedDecision>], at: Instant, cut: usize) -> CutResult {
    let mut summary = CutResult { instances: instances.len(), cut, ..CutResult::default() };
    for decisions in instances {
        let after = || decisions.iter().filter(|decision| decision.ended >= at);
        let failures = after().filter(|decision| decision.source != Some(Source::Redis));
        let last_failure = failures.map(|decision| decision.ended).max().unwrap_or(at);
        let mut by_redis = after().filter(|decision| decision.source == Some(Source::Redis));
        if let Some(back) = by_redis.find(|decision| decision.began >= last_failure) {
            summary.back += 1;
            summary.back_after_ms = summary.back_after_ms.max(ms(back.ended - at));
        }
        summary.decisions += after().count();
        summary.local += after().filter(|decision| decision.source == Some(Source::Local)).count();
        summary.failed += after().filter(|decision| decision.source.is_none()).count();
        let slowest = after().map(|decision| ms(decision.ended - decision.began)).fold(0.0, f64::max);
        summary.slowest_ms = summary.slowest_ms.max(slowest);
    }
    summary
}

/// Milliseconds, to the microsecond.
fn ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

impl CutResult {
    /// What is wrong, in sentences; empty if nothing is.
    pub(super) fn problems(&self) -> Vec<String> {
        let Self { instances, back, failed, .. } = self;
        let mut problems = Vec::new();
        if back < instances {
            let lost = instances - back;
            problems.push(format!("Redis did not decide again for {lost} of {instances} instances after the cut"));
        }
        if *failed > 0 {
            problems.push(format!("{failed} decisions failed after the cut"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_covers_what_happened_after_the_cut() {
        let at = Instant::now();
        let after = |ms| at + Duration::from_millis(ms);
        let step = |began, ended, source| TimedDecision { began: after(began), ended: after(ended), source };
        let recovered = vec![
            step(0, 2, Some(Source::Local)),
            step(3, 4, Some(Source::Local)),
            step(5, 9, Some(Source::Redis)),
            step(10, 11, Some(Source::Redis)),
        ];
        let lost = vec![step(0, 1, Some(Source::Redis)), step(1, 7, Some(Source::Local)), step(8, 9, None)];
        let summary = summarize(&[recovered.clone(), lost], at, 2);
        let expected = CutResult {
            instances: 2,
            cut: 2,
            back: 1,
            decisions: 7,
            local: 3,
            failed: 1,
            back_after_ms: 9.0,
            slowest_ms: 6.0,
        };
        assert_eq!(summary, expected);
        assert_eq!(summary.problems().len(), 2);
        assert!(summarize(&[recovered], at, 1).problems().is_empty());
    }
}
