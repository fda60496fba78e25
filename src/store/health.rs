//! Whether Redis answers this process: one log line per change, one gauge, however many connections there are.

use std::mem::{Discriminant, discriminant};
use std::sync::{Mutex, PoisonError};

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
    connections: usize,
    up: usize,
    has_been_up: bool,
    reported: Option<LoggedState>,
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

    fn show_on_gauge(&self, value: i64) {
        if let Some(gauge) = &self.gauge {
            gauge.set(value);
        }
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

    pub(super) fn join(&self) {
        self.change(|state| state.connections += 1, None);
    }

    pub(super) fn leave(&self, was_up: bool) {
        let apply = |state: &mut HealthState| {
            state.connections -= 1;
            state.up -= usize::from(was_up);
        };
        self.change(apply, None);
    }

    pub(super) fn up(&self) {
        self.change(|state| state.up += 1, None);
    }

    /// A connection that stood is gone.
    pub(super) fn lost(&self, why: &Outage) {
        self.change(|state| state.up -= 1, Some(why));
    }

    /// A connection could not be made.
    pub(super) fn unreachable(&self, why: &Outage) {
        self.change(|_| (), Some(why));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HealthState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, apply: impl FnOnce(&mut HealthState), why: Option<&Outage>) {
        let mut state = self.lock();
        apply(&mut state);
        let all_up = state.up == state.connections;
        if all_up && state.up > 0 {
            self.show_on_gauge(1);
            state.has_been_up = true;
            state.trouble = None;
            if state.reported.replace(LoggedState::Up) != Some(LoggedState::Up) {
                tracing::info!("Redis answers");
            }
        } else if let Some(why) = why {
            self.show_on_gauge(0);
            state.trouble = Some(why.whole());
            let now = LoggedState::Down(discriminant(why));
            let told = match &state.reported {
                Some(before @ LoggedState::Down(_)) => !why.needs_somebody() || *before == now,
                Some(LoggedState::Up) | None => false,
            };
            if !told {
                state.reported = Some(now);
                let cause = std::error::Error::source(why).map(ToString::to_string);
                tracing::warn!(cause, "{why}; requests are decided by store.redis.on_failure until it is back");
            }
        }
    }
}
