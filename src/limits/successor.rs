//! What a process that is being drained asks its successor: with the memory store, one process decides at any time.

use std::sync::mpsc;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::decision::{Decision, Source, WindowStatus};
use super::query::{Charge, LimitQuery};
use crate::config::{Limit, Plan, RouteLimits};

/// Something for the successor. They are passed on in order.
pub enum SuccessorRequest {
    /// Decides on a request. Dropped without an answer, the process decides by itself again.
    Decide(LimitQuestion, oneshot::Sender<SuccessorDecision>),
    /// A call has ended.
    EndCall {
        /// Its token.
        token: Box<str>,
        /// So many calls of this process have ended by now.
        ended: u64,
    },
    /// Clears the logs of a token.
    Reset(Box<str>),
}

/// The sending half of the way to the successor.
pub(super) type SuccessorSender = mpsc::Sender<SuccessorRequest>;

/// The successor's decision, and the call that it grants.
pub struct SuccessorDecision {
    pub(super) decision: Decision,
    pub(super) call: Option<GrantedCall>,
}

/// A call that was counted. Dropped before a lease keeps it, because its client has gone, it ends.
pub(super) struct GrantedCall {
    end: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl GrantedCall {
    pub(super) fn new(end: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self { end: Some(Box::new(end)) }
    }

    /// A lease counts it from here on.
    pub(super) fn keep(mut self) {
        self.end = None;
    }
}

impl Drop for GrantedCall {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            end();
        }
    }
}

/// A question to the limiter that can be sent to another process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LimitQuestion {
    pub(super) token: String,
    cost: u32,
    /// Counts and windows (ms).
    limits: Vec<(u32, u32)>,
    /// If it opens a call whose number is limited: how many may be open.
    pub(super) max_calls: Option<u32>,
    route: Option<(String, Vec<(u32, u32)>)>,
}

/// A decision that can be sent to another process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LimitAnswer {
    pub(super) admitted: bool,
    too_many_calls: Option<u32>,
    cost: u32,
    clock_ms: u64,
    windows: Vec<(u32, u32, u32, u64)>,
}

impl LimitQuestion {
    pub(super) fn new(query: &LimitQuery<'_>) -> Self {
        let route = query.charge.limits.map(|own| (own.route.to_string(), numbers(&own.limits)));
        let limits = numbers(&query.plan.limits);
        let token = query.subject.token_id.to_owned();
        Self { token, cost: query.charge.cost, limits, max_calls: query.max_calls(), route }
    }

    /// The plan and the route's limits, without the names that only their process needs. `None`: a window is empty.
    pub(super) fn limits(&self) -> Option<(Plan, Option<RouteLimits>)> {
        let plan = Plan { limits: limits(&self.limits)?, concurrent_calls: self.max_calls, ..Plan::default() };
        let route = match &self.route {
            Some((route, own)) => Some(RouteLimits { route: route.as_str().into(), limits: limits(own)? }),
            None => None,
        };
        Some((plan, route))
    }

    /// What it counts, with the limits of its route.
    pub(super) fn charge<'a>(&self, limits: Option<&'a RouteLimits>) -> Charge<'a> {
        Charge { cost: self.cost, limits, opens_call: self.max_calls.is_some() }
    }
}

impl LimitAnswer {
    pub(super) fn new(decision: &Decision) -> Self {
        let windows = decision.windows().iter();
        Self {
            admitted: decision.admitted,
            too_many_calls: decision.too_many_calls,
            cost: decision.cost(),
            clock_ms: decision.clock_ms(),
            windows: windows.map(|window| (window.used, window.limit, window.window_ms, window.frees_ms)).collect(),
        }
    }

    pub(super) fn decision(&self) -> Decision {
        let windows = self.windows.iter().map(|&(used, limit, window_ms, frees_ms)| WindowStatus {
            used,
            limit,
            window_ms,
            frees_ms,
        });
        let mut decision = Decision::new(self.admitted, Source::Local, self.cost, self.clock_ms, windows);
        decision.too_many_calls = self.too_many_calls;
        decision
    }
}

fn numbers(limits: &[Limit]) -> Vec<(u32, u32)> {
    limits.iter().map(|limit| (limit.count, limit.window_ms.get())).collect()
}

fn limits(numbers: &[(u32, u32)]) -> Option<Box<[Limit]>> {
    let limit = |&(count, window_ms): &(u32, u32)| {
        Some(Limit { name: "".into(), count, window_ms: window_ms.try_into().ok()? })
    };
    numbers.iter().map(limit).collect()
}
