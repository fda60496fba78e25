//! The state of a token's windows, for commands and the admin API.

use serde::{Deserialize, Serialize};

use super::decision::Decision;
use crate::config::{Limit, Plan, RouteLimits};

/// The state of all windows of a token. Its JSON form is what the command and the admin API print.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitReport {
    /// The token's id.
    pub id: String,
    /// Its plan. Its own limits may differ from it.
    pub plan: String,
    /// Whether the plan is only on trial and denies nothing.
    pub shadow: bool,
    /// Calls that it has open, over all instances, if their number is limited.
    pub open_calls: Option<u32>,
    /// Calls that it may have open at one time.
    pub concurrent_calls: Option<u32>,
    /// Its windows: its plan's, shortest first, then those of each route with limits of its own. Empty if there are none.
    pub windows: Vec<WindowReport>,
}

/// The state of one window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowReport {
    /// The limit's name.
    pub name: String,
    /// The route whose own limit this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Requests admitted in the window.
    pub used: u32,
    /// Requests that the window admits.
    pub limit: u32,
    /// The length of the window in seconds, rounded up.
    pub window_seconds: u32,
    /// The Unix second, rounded up, from which on it has room for a request: the present if it has room already.
    pub next_slot_at: u64,
    /// Seconds until then, rounded up; 0 if it has room.
    pub next_slot_in_seconds: u64,
}

impl LimitReport {
    /// `logs`: the answers of the plan's limits, and of each route's own, to a request of cost 1 if it were denied.
    pub(super) fn new(
        token_id: &str,
        plan: &Plan,
        routes: &[&RouteLimits],
        logs: &[Decision],
        open_calls: Option<u32>,
    ) -> Self {
        let own = routes.iter().map(|own| (Some(&*own.route), &*own.limits));
        let logs_of = std::iter::once((None, &*plan.limits)).chain(own).zip(logs);
        Self {
            id: token_id.to_owned(),
            plan: plan.name.to_string(),
            shadow: plan.shadow,
            open_calls,
            concurrent_calls: plan.concurrent_calls,
            windows: logs_of.flat_map(|((route, limits), seen)| windows(route, limits, seen)).collect(),
        }
    }
}

fn windows(route: Option<&str>, limits: &[Limit], seen: &Decision) -> impl Iterator<Item = WindowReport> {
    limits.iter().zip(seen.windows()).map(move |(limit, window)| {
        let frees_ms = if window.remaining() > 0 { seen.clock_ms() } else { window.frees_ms };
        WindowReport {
            name: limit.name.to_string(),
            route: route.map(str::to_owned),
            used: window.used,
            limit: window.limit,
            window_seconds: window.window_ms.div_ceil(1000),
            next_slot_at: frees_ms.div_ceil(1000),
            next_slot_in_seconds: frees_ms.saturating_sub(seen.clock_ms()).div_ceil(1000),
        }
    })
}
