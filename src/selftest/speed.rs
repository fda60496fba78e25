//! How many decisions Redis makes, and how long each takes: one at a time, and many.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::contention::TokenGroup;
use super::instance::{TestInstance, on_instances};
use crate::config::RedisStore;

/// The deadline of a decision, unless the configuration sets another.
const DEFAULT_DEADLINE: Duration = Duration::from_millis(50);

#[derive(Debug, Serialize)]
pub(super) struct SpeedResult {
    /// Decisions in flight at the same time.
    pub(super) at_a_time: usize,
    pub(super) seconds: f64,
    pub(super) decisions: usize,
    pub(super) per_second: u64,
    pub(super) latency_us: LatencyQuantiles,
    pub(super) over_50_ms: usize,
    pub(super) unanswered: usize,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct LatencyQuantiles {
    pub(super) p50: u32,
    pub(super) p90: u32,
    pub(super) p99: u32,
    pub(super) max: u32,
}

/// Measures for `time` with so many `deciders` on each of so many `instances`.
pub(super) async fn measure(
    store: &RedisStore,
    group: TokenGroup,
    (instances, deciders): (usize, usize),
    time: Duration,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<SpeedResult> {
    let measured = on_instances(store, instances, deciders, async move |instance: &TestInstance| {
        // The first decision warms the connection up and loads the script.
        instance.decide(&group.tokens[0], &group.plan).await;
        let (began, mut latencies_us, mut unanswered) = (Instant::now(), Vec::new(), 0);
        while began.elapsed() < time && !stop.load(Ordering::Relaxed) {
            let token = &group.tokens[fastrand::usize(..group.tokens.len())];
            let asked = Instant::now();
            match instance.decide(token, &group.plan).await {
                Some(_) => latencies_us.push(asked.elapsed().as_micros().min(u128::from(u32::MAX)) as u32),
                None => unanswered += 1,
            }
        }
        Ok((latencies_us, unanswered, began.elapsed()))
    })
    .await?;
    let (mut latencies_us, mut unanswered, mut longest) = (Vec::new(), 0, Duration::ZERO);
    for (latencies, failures, took) in measured {
        latencies_us.extend(latencies);
        unanswered += failures;
        longest = longest.max(took);
    }
    let seconds = longest.as_secs_f64().max(f64::MIN_POSITIVE);
    let deadline_us = DEFAULT_DEADLINE.as_micros() as u32;
    Ok(SpeedResult {
        at_a_time: instances * deciders,
        seconds: (seconds * 1e3).round() / 1e3,
        decisions: latencies_us.len(),
        per_second: (latencies_us.len() as f64 / seconds) as u64,
        over_50_ms: latencies_us.iter().filter(|&&latency_us| latency_us > deadline_us).count(),
        latency_us: quantiles(latencies_us),
        unanswered,
    })
}

/// The nearest-rank quantiles.
fn quantiles(mut latencies_us: Vec<u32>) -> LatencyQuantiles {
    latencies_us.sort_unstable();
    let count = latencies_us.len();
    let at = |percent: usize| latencies_us.get((count * percent).div_ceil(100).saturating_sub(1)).copied();
    let at = |percent| at(percent).unwrap_or_default();
    LatencyQuantiles { p50: at(50), p90: at(90), p99: at(99), max: at(100) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_latencies_that_occurred() {
        assert_eq!(quantiles((1..=1000).rev().collect()), LatencyQuantiles { p50: 500, p90: 900, p99: 990, max: 1000 });
        assert_eq!(quantiles(vec![7]), LatencyQuantiles { p50: 7, p90: 7, p99: 7, max: 7 });
        assert_eq!(quantiles(vec![1, 9]), LatencyQuantiles { p50: 1, p90: 9, p99: 9, max: 9 });
        assert_eq!(quantiles(Vec::new()), LatencyQuantiles::default());
    }
}
