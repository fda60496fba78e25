//! How many decisions Redis makes, and how long each takes: one at a time, and many.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future;
use serde::Serialize;

use super::contest::Group;
use super::instance::{Instance, PAUSE, on_instances};
use crate::config::RedisStore;

/// What a gateway waits for a decision unless it is configured otherwise.
const USUAL_DEADLINE: Duration = Duration::from_millis(50);

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct Speed {
    /// Decisions on their way at the same time.
    pub(super) at_a_time: usize,
    pub(super) seconds: f64,
    pub(super) decisions: usize,
    pub(super) per_second: u64,
    pub(super) latency_us: Quantiles,
    /// Decisions that took longer than the 50 ms that a gateway waits by default.
    pub(super) over_50_ms: usize,
    pub(super) unanswered: usize,
}

/// Latencies in microseconds.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Quantiles {
    pub(super) p50: u32,
    pub(super) p90: u32,
    pub(super) p99: u32,
    pub(super) max: u32,
}

#[derive(Default)]
struct Tally {
    latencies_us: Vec<u32>,
    unanswered: usize,
}

/// Measures for `time` with so many `deciders` on each of the first `instances`.
pub(super) async fn measure(
    store: RedisStore,
    group: Group,
    (instances, deciders): (usize, usize),
    time: Duration,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<Speed> {
    let work = move |number| {
        let (store, group, stop) = (store.clone(), group.clone(), stop.clone());
        async move {
            match number < instances {
                true => run(store, group, deciders, time, stop).await,
                false => Ok((Tally::default(), Duration::ZERO)),
            }
        }
    };
    let mut all = Tally::default();
    let mut longest = Duration::ZERO;
    for (tally, time) in on_instances(work).await? {
        all.latencies_us.extend(tally.latencies_us);
        all.unanswered += tally.unanswered;
        longest = longest.max(time);
    }
    let usual_us = USUAL_DEADLINE.as_micros() as u32;
    let seconds = longest.as_secs_f64().max(f64::MIN_POSITIVE);
    Ok(Speed {
        at_a_time: instances * deciders,
        seconds: (seconds * 1e3).round() / 1e3,
        decisions: all.latencies_us.len(),
        per_second: (all.latencies_us.len() as f64 / seconds) as u64,
        over_50_ms: all.latencies_us.iter().filter(|&&latency_us| latency_us > usual_us).count(),
        latency_us: quantiles(all.latencies_us),
        unanswered: all.unanswered,
    })
}

async fn run(
    store: RedisStore,
    group: Group,
    deciders: usize,
    time: Duration,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<(Tally, Duration)> {
    let instance = Instance::open(&store).await?;
    // The connection is warm, and Redis knows the script.
    instance.decide(&group.tokens[0], &group.plan).await;
    let began = Instant::now();
    let decider = async |_| {
        let mut tally = Tally::default();
        while began.elapsed() < time && !stop.load(Ordering::Relaxed) {
            let token = &group.tokens[fastrand::usize(..group.tokens.len())];
            let asked = Instant::now();
            match instance.decide(token, &group.plan).await {
                Some(_) => tally.latencies_us.push(asked.elapsed().as_micros().min(u128::from(u32::MAX)) as u32),
                None => {
                    tally.unanswered += 1;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        tally
    };
    let mut all = Tally::default();
    for tally in future::join_all((0..deciders).map(decider)).await {
        all.latencies_us.extend(tally.latencies_us);
        all.unanswered += tally.unanswered;
    }
    Ok((all, began.elapsed()))
}

/// The smallest latency that so large a share does not exceed.
fn quantiles(mut latencies_us: Vec<u32>) -> Quantiles {
    latencies_us.sort_unstable();
    let count = latencies_us.len();
    let at = |percent: usize| latencies_us.get((count * percent).div_ceil(100).saturating_sub(1)).copied();
    let at = |percent| at(percent).unwrap_or_default();
    Quantiles { p50: at(50), p90: at(90), p99: at(99), max: at(100) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_latencies_that_occurred() {
        assert_eq!(quantiles((1..=1000).rev().collect()), Quantiles { p50: 500, p90: 900, p99: 990, max: 1000 });
        assert_eq!(quantiles(vec![7]), Quantiles { p50: 7, p90: 7, p99: 7, max: 7 });
        assert_eq!(quantiles(vec![1, 9]), Quantiles { p50: 1, p90: 9, p99: 9, max: 9 });
        assert_eq!(quantiles(Vec::new()), Quantiles::default());
    }
}
