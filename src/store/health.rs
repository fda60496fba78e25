//! Whether Redis answers this process: one log line per change and one gauge, for all connections.

use std::mem::{Discriminant, discriminant};
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;

use super::outage::Outage;

/// What all connections of a process know together; by default without a gauge.
#[derive(Default)]
pub struct StoreHealth {
    gauge: Option<IntGauge>,
    state: Mutex<HealthState>,
}

#[derive(Default)]
struct HealthState {
    connections: isize,
    up: isize,
    has_been_up: bool,
    logged: Option<LoggedState>,
    trouble: Option<String>,
}

#[derive(PartialEq, Eq)]
enum LoggedState {
    Up,
    Down(Discriminant<Outage>),
}

impl StoreHealth {
    /// `gauge` is 1 while every connection answers, otherwise 0.
    #[must_use]
    pub fn new(gauge: IntGauge) -> Self {
        gauge.set(0);
        Self { gauge: Some(gauge), state: Mutex::default() }
    }

    /// Whether Redis has answered at least once since the start.
    #[must_use]
    pub fn has_been_up(&self) -> bool {
        self.lock().has_been_up
    }

    /// Why Redis does not answer, for an operator; `None` while it does. It names no password.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// One more connection, which is not up yet.
    pub(super) fn join(&self) {
        self.change(1, 0, None);
    }

    pub(super) fn leave(&self, was_up: bool) {
        self.change(-1, -isize::from(was_up), None);
    }

    pub(super) fn up(&self) {
        self.change(0, 1, None);
    }

    /// A connection that was up is gone.
    pub(super) fn lost(&self, why: &Outage) {
        self.change(0, -1, Some(why));
    }

    /// A connection could not be made.
    pub(super) fn unreachable(&self, why: &Outage) {
        self.change(0, 0, Some(why));
    }

    fn lock(&self) -> MutexGuard<'_, HealthState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, connections: isize, up: isize, why: Option<&Outage>) {
        let mut state = self.lock();
        state.connections += connections;
        state.up += up;
        if state.up == state.connections && state.up > 0 {
            self.gauge.iter().for_each(|gauge| gauge.set(1));
            state.has_been_up = true;
            state.trouble = None;
            if state.logged.replace(LoggedState::Up) != Some(LoggedState::Up) {
                tracing::info!("Redis answers");
            }
        } else if let Some(why) = why {
            self.gauge.iter().for_each(|gauge| gauge.set(0));
            state.trouble = Some(why.with_causes());
            let now = LoggedState::Down(discriminant(why));
            let is_logged = match &state.logged {
                Some(before @ LoggedState::Down(_)) => !why.needs_operator() || *before == now,
                Some(LoggedState::Up) | None => false,
            };
            if !is_logged {
                state.logged = Some(now);
                let cause = std::error::Error::source(why).map(ToString::to_string);
                tracing::warn!(cause, "{why}; store.redis.on_failure decides on requests until Redis answers again");
            }
        }
    }
}
