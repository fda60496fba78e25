//! What becomes of decisions when the instances' connections are cut under load.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::future;
use serde::Serialize;

use super::contest::Group;
use super::instance::{INSTANCES, Instance, on_instances};
use super::target::Target;
use crate::config::{OnFailure, RedisStore};
use crate::limits::Source;

/// Each instance decides about so often.
const PACE: Duration = Duration::from_millis(1);
/// The default of a configuration.
const DEADLINE: Duration = Duration::from_millis(50);
/// Redis has to decide for so long without a pause to be called back.
const STEADY: Duration = Duration::from_millis(300);
/// Healing a connection that was cut takes milliseconds.
const LONGEST: Duration = Duration::from_secs(10);

/// How the cut was survived, over all instances.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Cut {
    pub(super) instances: usize,
    /// Connections that Redis closed.
    pub(super) cut: usize,
    /// Instances for which Redis decides again.
    pub(super) back: usize,
    /// Decisions after the cut, of which `local` were made by the instance alone, and of which nobody made `failed`.
    pub(super) decisions: usize,
    pub(super) local: usize,
    pub(super) failed: usize,
    /// From the cut until Redis decided again, of the slowest instance.
    pub(super) back_after_ms: f64,
    /// The slowest decision after the cut.
    pub(super) slowest_ms: f64,
}

/// One decision of one instance.
#[derive(Clone, Copy)]
struct Step {
    began: Instant,
    ended: Instant,
    /// Who decided, if anybody did.
    source: Option<Source>,
}

/// What the instances and whoever cuts know together.
struct Stage {
    store: RedisStore,
    group: Group,
    stop: Arc<AtomicBool>,
    ready: AtomicUsize,
    /// When the connections were cut; `None` if they can't be.
    cut: OnceLock<Option<Instant>>,
}

/// Lets all instances decide, cuts their connections, and waits until Redis decides again.
///
/// # Errors
/// Why connections can't be cut, for example because this user of Redis may not.
pub(super) async fn survive(target: &Target, group: Group, stop: Arc<AtomicBool>) -> anyhow::Result<Cut> {
    let store = RedisStore { deadline: DEADLINE, on_failure: OnFailure::Local, ..target.store.clone() };
    let name = store.namespace.to_string();
    let ready = AtomicUsize::new(0);
    let stage = Arc::new(Stage { store, group, stop, ready, cut: OnceLock::new() });
    let actors = stage.clone();
    let instances = on_instances(move |number| act(actors.clone(), number));
    let (steps, cut) = tokio::join!(instances, cut_when_ready(target, &name, &stage));
    let (steps, (at, cut)) = (steps?, cut?);
    Ok(summarize(&steps, at, cut))
}

async fn cut_when_ready(target: &Target, name: &str, stage: &Stage) -> anyhow::Result<(Instant, usize)> {
    let began = Instant::now();
    while stage.ready.load(Ordering::Relaxed) < INSTANCES && began.elapsed() < LONGEST {
        tokio::time::sleep(PACE).await;
    }
    let at = Instant::now();
    let cut = target.cut(name).await;
    // The instances end without a cut, too.
    let _ = stage.cut.set(cut.is_ok().then_some(at));
    Ok((at, cut?))
}

async fn act(stage: Arc<Stage>, number: usize) -> anyhow::Result<Vec<Step>> {
    let Stage { store, group, stop, ready, cut } = &*stage;
    let instance = Instance::open(store).await;
    // Whoever cuts waits for everybody, also for those who can't play.
    let named = match &instance {
        Ok(instance) => {
            let mut name = redis::cmd("CLIENT");
            name.arg("SETNAME").arg(&*store.namespace);
            let servers = 0..instance.redis.servers();
            let named = servers.map(|server| instance.redis.call_server(server, &name));
            future::try_join_all(named).await.map(drop)
        }
        Err(_) => Ok(()),
    };
    ready.fetch_add(1, Ordering::Relaxed);
    let instance = instance?;
    named?;
    let token = &group.tokens[number];
    let (began, mut steps) = (Instant::now(), Vec::new());
    let mut wavered = began;
    loop {
        let asked = Instant::now();
        let source = instance.decide(token, &group.plan).await.map(|decision| decision.source);
        let step = Step { began: asked, ended: Instant::now(), source };
        steps.push(step);
        if source != Some(Source::Redis) {
            wavered = step.ended;
        }
        let since = match cut.get() {
            Some(None) => return Ok(steps),
            Some(Some(at)) => at.max(&wavered),
            None => &step.ended,
        };
        if stop.load(Ordering::Relaxed) || began.elapsed() > 2 * LONGEST || since.elapsed() > STEADY {
            return Ok(steps);
        }
        tokio::time::sleep(PACE).await;
    }
}

fn summarize(instances: &[Vec<Step>], at: Instant, cut: usize) -> Cut {
    let mut summary = Cut { instances: instances.len(), cut, ..Cut::default() };
    for steps in instances {
        let after = || steps.iter().filter(|step| step.ended >= at);
        let wavered = after().filter(|step| step.source != Some(Source::Redis)).map(|step| step.ended).max();
        let from = wavered.unwrap_or(at);
        let back = after().find(|step| step.began >= from && step.source == Some(Source::Redis));
        if let Some(back) = back {
            summary.back += 1;
            summary.back_after_ms = summary.back_after_ms.max(ms(back.ended - at));
        }
        summary.decisions += after().count();
        summary.local += after().filter(|step| step.source == Some(Source::Local)).count();
        summary.failed += after().filter(|step| step.source.is_none()).count();
        let slowest = after().map(|step| ms(step.ended - step.began)).fold(0.0, f64::max);
        summary.slowest_ms = summary.slowest_ms.max(slowest);
    }
    summary
}

/// Milliseconds, to the microsecond.
fn ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

impl Cut {
    /// What is not as it must be, for people; empty if all is.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.back < self.instances {
            problems.push(format!(
                "after its connection was cut, Redis did not decide again for {} of {} instances",
                self.instances - self.back,
                self.instances
            ));
        }
        if self.failed > 0 {
            problems.push(format!("after the connections were cut, nobody made {} decisions", self.failed));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_up_what_happened_after_the_cut() {
        let at = Instant::now();
        let after = |ms| at + Duration::from_millis(ms);
        let step = |began, ended, source| Step { began: after(began), ended: after(ended), source };
        let healed = vec![
            step(0, 2, Some(Source::Local)),
            step(3, 4, Some(Source::Local)),
            step(5, 9, Some(Source::Redis)),
            step(10, 11, Some(Source::Redis)),
        ];
        let lost = vec![step(0, 1, Some(Source::Redis)), step(1, 7, Some(Source::Local)), step(8, 9, None)];
        let summary = summarize(&[healed.clone(), lost], at, 2);
        let expected = Cut {
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
        assert!(summarize(&[healed], at, 1).problems().is_empty());
    }
}
