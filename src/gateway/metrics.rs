//! What requests of all configurations are counted, logged and looked up with.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::{self, OpenCalls, Refusal};
use crate::forward::EndedBy;
use crate::limits::{Decision, Source};
use crate::live_calls::LiveCalls;
use crate::telemetry::{AccessLog, Counter, DecisionCell, Histogram, Metrics, RouteMetrics, Traces};

/// Where requests are counted, logged and looked up while they last.
#[derive(Clone)]
pub(crate) struct RequestMetrics {
    pub(super) log: AccessLog,
    pub(super) traces: Option<Traces>,
    pub(super) open_calls: Arc<OpenCalls>,
    pub(super) live_calls: Arc<LiveCalls>,
    pub(super) shadow_denials: Counter,
    /// The cells of requests for which no route was found.
    pub(super) no_route: Arc<RouteMetrics>,
    auth: Vec<(&'static str, Counter)>,
    decisions: [[Counter; 3]; 2],
    decision_seconds: Histogram,
    calls_ended: [Counter; ENDED_BY.len()],
}

/// The order of the cells of `calls_ended`, which is that of [`EndedBy`].
const ENDED_BY: [EndedBy; 3] = [EndedBy::Client, EndedBy::Upstream, EndedBy::Gateway];

impl RequestMetrics {
    /// Resolves every cell.
    pub(crate) fn new(
        metrics: &Metrics,
        log: AccessLog,
        traces: Option<Traces>,
        open_calls: Arc<OpenCalls>,
        live_calls: Arc<LiveCalls>,
    ) -> Self {
        let decisions = |outcome| Source::ALL.map(|source| metrics.decisions(outcome, source.as_str()));
        Self {
            log,
            traces,
            open_calls,
            live_calls,
            shadow_denials: metrics.shadow_denials.clone(),
            no_route: metrics.route("none", &[]),
            auth: auth::OUTCOMES.iter().map(|outcome| (*outcome, metrics.auth(outcome))).collect(),
            decisions: [decisions("denied"), decisions("admitted")],
            decision_seconds: metrics.decision_seconds.clone(),
            calls_ended: ENDED_BY.map(|by| metrics.calls_ended(by.as_str())),
        }
    }

    /// The same for one worker: its requests write their lines into a buffer of their own, and share no counter of references with others.
    pub(crate) fn for_worker(&self) -> Arc<Self> {
        Arc::new(Self { log: self.log.for_worker(), ..self.clone() })
    }

    /// The cells of requests for which no route was found.
    pub(crate) fn no_route(&self) -> &Arc<RouteMetrics> {
        &self.no_route
    }

    /// The cells of decisions, by outcome and source.
    pub(crate) fn decision_cells(&self) -> Vec<DecisionCell> {
        let mut all = Vec::new();
        for (outcome, cells) in ["denied", "admitted"].into_iter().zip(&self.decisions) {
            let of_outcome = Source::ALL.into_iter().zip(cells);
            all.extend(of_outcome.map(|(source, cell)| DecisionCell {
                outcome,
                source: source.as_str(),
                cell: cell.clone(),
            }));
        }
        all
    }

    /// Counts an authentication by its outcome.
    pub(super) fn authenticated(&self, refusal: Option<Refusal>) {
        let outcome = refusal.map_or(auth::OUTCOMES[0], Refusal::outcome);
        if let Some((_, cell)) = self.auth.iter().find(|(name, _)| *name == outcome) {
            cell.inc();
        }
    }

    pub(super) fn decided(&self, decision: &Decision, took: Duration) {
        self.decisions[usize::from(decision.admitted)][decision.source as usize].inc();
        self.decision_seconds.observe(took);
    }

    pub(super) fn call_ended(&self, by: EndedBy) {
        self.calls_ended[by as usize].inc();
    }
}
