//! The logs of one token in memory: its plan's, and one for each route with limits of its own.

use std::sync::Arc;

use super::decision::Decision;
use super::log::{JUMP_MS, Log};
use super::question::Charge;
use crate::config::{Plan, RouteLimits};

/// All that is remembered of a token.
#[derive(Default)]
pub(super) struct Logs {
    plan: Log,
    /// By the route's name. Few tokens use such routes, and then few.
    routes: Option<Box<RouteLogs>>,
}

type RouteLogs = smallvec::SmallVec<[(Arc<str>, Log); 1]>;

impl Logs {
    /// Decides whether a request may pass at `clock_ms` (Unix ms): only if all of its limits have room, those of its route on
    /// the log for that. The twin of `pair.lua`.
    pub(super) fn decide(&mut self, plan: &Plan, charge: Charge<'_>, clock_ms: u64) -> Decision {
        let cost = charge.cost;
        let Some(own) = charge.limits else { return self.plan.decide(&plan.limits, cost, clock_ms) };
        let route = route_log(&mut self.routes, own, clock_ms);
        if plan.limits.is_empty() {
            return route.decide(&own.limits, cost, clock_ms);
        }
        // Both are asked in any case: a new clock has to reach both.
        let has_room = self.plan.has_room(&plan.limits, cost, clock_ms) & route.has_room(&own.limits, cost, clock_ms);
        let answer = if has_room { Log::decide } else { Log::refuse };
        answer(&mut self.plan, &plan.limits, cost, clock_ms).and(answer(route, &own.limits, cost, clock_ms))
    }

    /// Refuses such a request, whether there is room or not.
    pub(super) fn refuse(&mut self, plan: &Plan, charge: Charge<'_>, clock_ms: u64) -> Decision {
        let refusal = self.plan.refuse(&plan.limits, charge.cost, clock_ms);
        match charge.limits {
            None => refusal,
            Some(own) => {
                refusal.and(route_log(&mut self.routes, own, clock_ms).refuse(&own.limits, charge.cost, clock_ms))
            }
        }
    }

    /// What such a request would be told at `clock_ms` (Unix ms) if it were refused. Changes nothing.
    pub(super) fn peek(&mut self, plan: &Plan, charge: Charge<'_>, clock_ms: u64) -> Decision {
        let seen = self.plan.peek(&plan.limits, charge.cost, clock_ms);
        match charge.limits {
            None => seen,
            Some(own) => seen.and(self.peek_route(own, charge.cost, clock_ms)),
        }
    }

    /// The same for the limits of a route alone.
    pub(super) fn peek_route(&mut self, own: &RouteLimits, cost: u32, clock_ms: u64) -> Decision {
        let known = self.routes.iter_mut().flat_map(|logs| logs.iter_mut()).find(|(name, _)| *name == own.route);
        match known {
            Some((_, log)) => log.peek(&own.limits, cost, clock_ms),
            None => Log::default().peek(&own.limits, cost, clock_ms),
        }
    }

    /// Writes down a request that somebody else admitted.
    pub(super) fn record(&mut self, plan: &Plan, charge: Charge<'_>, clock_ms: u64) {
        if !plan.limits.is_empty() {
            self.plan.record(&plan.limits, charge.cost, clock_ms);
        }
        if let Some(own) = charge.limits {
            route_log(&mut self.routes, own, clock_ms).record(&own.limits, charge.cost, clock_ms);
        }
    }

    /// The clock's reading at the newest stamp, Unix ms.
    pub(super) fn newest_ms(&self) -> u64 {
        self.all().map(Log::newest_ms).max().unwrap_or_default()
    }

    /// Whether all that it remembers has left all windows.
    pub(super) fn is_expired(&self, clock_ms: u64) -> bool {
        self.all().all(|log| log.is_expired(clock_ms))
    }

    fn all(&self) -> impl Iterator<Item = &Log> {
        std::iter::once(&self.plan).chain(self.routes.iter().flat_map(|logs| logs.iter()).map(|(_, log)| log))
    }
}

/// So many logs of routes may hold nothing any more before they are looked through.
const FEW: usize = 4;

/// The log for a route, made if need be; if there are many, then those go that hold nothing any more, even if the clock runs back a little.
fn route_log<'a>(routes: &'a mut Option<Box<RouteLogs>>, own: &RouteLimits, clock_ms: u64) -> &'a mut Log {
    let logs = routes.get_or_insert_default();
    let at = logs.iter().position(|(name, _)| *name == own.route).unwrap_or_else(|| {
        if logs.len() >= FEW {
            logs.retain(|(_, log)| !log.is_expired(clock_ms.saturating_sub(JUMP_MS)));
        }
        logs.push((own.route.clone(), Log::default()));
        logs.len() - 1
    });
    &mut logs[at].1
}
