//! Where a token stands, for people and programs that ask from outside.

use serde::{Deserialize, Serialize};

use super::decision::Decision;
use crate::config::Plan;

/// Where a token stands in all its windows. Its JSON form is what the command and the admin API print.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The token's id.
    pub id: String,
    /// Its plan, of which its own limits may differ.
    pub plan: String,
    /// Whether that is only a trial, which denies nothing.
    pub shadow: bool,
    /// Calls that it has open, over all instances, if their number is limited.
    pub open_calls: Option<u32>,
    /// Calls that it may have open at one time.
    pub concurrent_calls: Option<u32>,
    /// Its windows, shortest first; empty if it has no limits.
    pub windows: Vec<WindowReport>,
}

/// Where a token stands in one window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowReport {
    /// The limit's name.
    pub name: String,
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

impl Report {
    /// `seen` is what a request of cost 1 would be told if it were refused.
    pub(super) fn new(token_id: &str, plan: &Plan, seen: &Decision, open_calls: Option<u32>) -> Self {
        let windows = plan.limits.iter().zip(seen.windows()).map(|(limit, window)| {
            let frees_ms = if window.remaining() > 0 { seen.now_ms() } else { window.frees_ms };
            WindowReport {
                name: limit.name.to_string(),
                used: window.used,
                limit: window.limit,
                window_seconds: window.window_ms.div_ceil(1000),
                next_slot_at: frees_ms.div_ceil(1000),
                next_slot_in_seconds: frees_ms.saturating_sub(seen.now_ms()).div_ceil(1000),
            }
        });
        Self {
            id: token_id.to_owned(),
            plan: plan.name.to_string(),
            shadow: plan.shadow,
            open_calls,
            concurrent_calls: plan.concurrent_calls,
            windows: windows.collect(),
        }
    }
}
