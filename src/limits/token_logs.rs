//! The logs of one token in memory: its plan's, and one for each route with limits of its own.

use std::sync::Arc;

use super::decision::Decision;
use super::log::{AdmissionLog, JUMP_MS};
use super::log_bytes::{DamagedLogs, read_text, read_u32, write_text};
use super::query::Charge;
use crate::config::{Plan, RouteLimits};

/// All that is remembered of a token.
#[derive(Default)]
pub(super) struct TokenLogs {
    plan: AdmissionLog,
    /// By the route's name. Few tokens use such routes, and then few.
    routes: Option<Box<RouteLogs>>,
}

type RouteLogs = smallvec::SmallVec<[(Arc<str>, AdmissionLog); 1]>;

impl TokenLogs {
    /// Decides whether a request may pass at `clock_ms` (Unix ms): only if `may_admit`, and if all of its limits have room,
    /// those of its route on the log for that. The twin of `pair.lua`.
    pub(super) fn decide(&mut self, plan: &Plan, charge: Charge<'_>, clock_ms: u64, may_admit: bool) -> Decision {
        let cost = charge.cost;
        let Some(own) = charge.limits else { return self.plan.decide(&plan.limits, cost, clock_ms, may_admit) };
        let route = route_log(&mut self.routes, own, clock_ms);
        if plan.limits.is_empty() {
            return route.decide(&own.limits, cost, clock_ms, may_admit);
        }
        // Both read the clock in any case: a new one has to reach both.
        let have_room = self.plan.has_room(&plan.limits, cost, clock_ms) & route.has_room(&own.limits, cost, clock_ms);
        let may_admit = may_admit && have_room;
        let decision = self.plan.decide(&plan.limits, cost, clock_ms, may_admit);
        decision.and(route.decide(&own.limits, cost, clock_ms, may_admit))
    }

    /// The answers of the plan's limits, and of each route's own, to a request of cost 1 at `clock_ms` (Unix ms) if it were
    /// denied. Changes nothing.
    pub(super) fn peek(&mut self, plan: &Plan, routes: &[&RouteLimits], clock_ms: u64) -> Vec<Decision> {
        let plan = self.plan.peek(&plan.limits, clock_ms);
        let own = routes.iter().map(|own| {
            let mut known = self.routes.iter_mut().flat_map(|logs| logs.iter_mut());
            match known.find(|(name, _)| *name == own.route) {
                Some((_, log)) => log.peek(&own.limits, clock_ms),
                None => AdmissionLog::default().peek(&own.limits, clock_ms),
            }
        });
        std::iter::once(plan).chain(own).collect()
    }

    /// Logs a request that Redis admitted.
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
        self.all().map(|log| log.newest_ms).max().unwrap_or_default()
    }

    /// Whether all that it remembers has left all windows.
    pub(super) fn is_expired(&self, clock_ms: u64) -> bool {
        self.all().all(|log| log.is_expired(clock_ms))
    }

    /// Appends the logs as bytes.
    pub(super) fn write_bytes(&self, out: &mut Vec<u8>) {
        self.plan.write_bytes(out);
        let routes = self.routes.as_deref().map_or(&[][..], |routes| routes);
        out.extend_from_slice(&(routes.len() as u32).to_le_bytes());
        for (route, log) in routes {
            write_text(out, route);
            log.write_bytes(out);
        }
    }

    /// Reads the logs, and leaves what follows in `bytes`.
    pub(super) fn read_bytes(bytes: &mut &[u8]) -> Result<Self, DamagedLogs> {
        let plan = AdmissionLog::read_bytes(bytes)?;
        let mut routes = RouteLogs::new();
        for _ in 0..read_u32(bytes)? {
            routes.push((read_text(bytes)?.into(), AdmissionLog::read_bytes(bytes)?));
        }
        Ok(Self { plan, routes: (!routes.is_empty()).then(|| Box::new(routes)) })
    }

    fn all(&self) -> impl Iterator<Item = &AdmissionLog> {
        std::iter::once(&self.plan).chain(self.routes.iter().flat_map(|logs| logs.iter()).map(|(_, log)| log))
    }
}

/// From so many logs of routes on, those that are empty are dropped.
const MAX_EMPTY: usize = 4;

/// The log for a route, made if need be. A log is dropped only if it stays empty even when the clock runs back a little.
fn route_log<'a>(routes: &'a mut Option<Box<RouteLogs>>, own: &RouteLimits, clock_ms: u64) -> &'a mut AdmissionLog {
    let logs = routes.get_or_insert_default();
    let at = logs.iter().position(|(name, _)| *name == own.route).unwrap_or_else(|| {
        if logs.len() >= MAX_EMPTY {
            logs.retain(|(_, log)| !log.is_expired(clock_ms.saturating_sub(JUMP_MS)));
        }
        logs.push((own.route.clone(), AdmissionLog::default()));
        logs.len() - 1
    });
    &mut logs[at].1
}
