//! Whether Redis answers this process: one log line per change and one gauge, for all connections.

use std::mem::{Discriminant, discriminant};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use prometheus::IntGauge;
use tokio::sync::watch;

use super::outage::Outage;
use crate::config::{OnFailure, RedisNode};

/// What all connections of a process know together; by default without a gauge.
#[derive(Default)]
pub struct StoreHealth {
    gauge: Option<IntGauge>,
    on_failure: Option<OnFailure>,
    /// Requests that were decided without Redis since the last change.
    decided: AtomicU64,
    /// Notified whenever Redis begins to answer.
    recoveries: watch::Sender<()>,
    state: Mutex<HealthState>,
}

#[derive(Default)]
struct HealthState {
    connections: isize,
    up: isize,
    has_been_up: bool,
    logged: Option<LoggedState>,
    trouble: Option<String>,
    down_since: Option<Instant>,
    /// When it began to answer, or ceased to.
    changed_at: Option<SystemTime>,
}

/// Whether Redis answers at the moment.
#[derive(Debug, Clone)]
pub(crate) struct StoreState {
    pub(crate) connected: bool,
    /// When that began; `None` if nothing has been tried yet.
    pub(crate) since: Option<SystemTime>,
    /// Why not, for an operator. It names no password.
    pub(crate) trouble: Option<String>,
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
        Self { gauge: Some(gauge), ..Self::default() }
    }

    /// The same, that names the policy in its log lines.
    #[must_use]
    pub fn with_policy(self, on_failure: OnFailure) -> Self {
        Self { on_failure: Some(on_failure), ..self }
    }

    /// Whether no connection answers although the policy needs one, so that every request gets 503.
    #[must_use]
    pub fn denies_all(&self) -> bool {
        self.on_failure == Some(OnFailure::Deny) && self.lock().up == 0
    }

    /// Changes whenever Redis begins to answer.
    pub(crate) fn recoveries(&self) -> watch::Receiver<()> {
        self.recoveries.subscribe()
    }

    /// A request is decided without Redis.
    pub(super) fn decided(&self) {
        self.decided.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether Redis has answered at least once since the start.
    #[must_use]
    pub fn has_been_up(&self) -> bool {
        self.lock().has_been_up
    }

    /// Whether Redis answers, and since when.
    pub(crate) fn state(&self) -> StoreState {
        let state = self.lock();
        let connected = state.has_been_up && state.trouble.is_none();
        StoreState { connected, since: state.changed_at, trouble: state.trouble.clone() }
    }

    /// Why Redis does not answer, for an operator; `None` while it does. It names no password.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// One more connection, which is not up yet.
    pub(super) fn join(&self) {
        self.change(1, 0, None, None);
    }

    pub(super) fn leave(&self, was_up: bool) {
        self.change(-1, -isize::from(was_up), None, None);
    }

    /// A connection to this server answers.
    pub(super) fn up(&self, server: &RedisNode) {
        self.change(0, 1, Some(server), None);
    }

    /// A connection that was up is gone.
    pub(super) fn lost(&self, why: &Outage) {
        self.change(0, -1, None, Some(why));
    }

    /// A connection could not be made.
    pub(super) fn unreachable(&self, why: &Outage) {
        self.change(0, 0, None, Some(why));
    }

    fn lock(&self) -> MutexGuard<'_, HealthState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, connections: isize, up: isize, server: Option<&RedisNode>, why: Option<&Outage>) {
        let mut state = self.lock();
        state.connections += connections;
        state.up += up;
        if state.up == state.connections && state.up > 0 {
            self.gauge.iter().for_each(|gauge| gauge.set(1));
            state.has_been_up = true;
            state.trouble = None;
            if state.logged.replace(LoggedState::Up) != Some(LoggedState::Up) {
                state.changed_at = Some(SystemTime::now());
                self.report_recovery(server, state.down_since.take());
            }
        } else if let Some(why) = why {
            self.gauge.iter().for_each(|gauge| gauge.set(0));
            state.trouble = Some(why.with_causes());
            if state.down_since.is_none() {
                state.down_since = Some(Instant::now());
                state.changed_at = Some(SystemTime::now());
                self.decided.store(0, Ordering::Relaxed);
            }
            let now = LoggedState::Down(discriminant(why));
            let is_logged = match &state.logged {
                Some(before @ LoggedState::Down(_)) => !why.needs_operator() || *before == now,
                Some(LoggedState::Up) | None => false,
            };
            if !is_logged {
                state.logged = Some(now);
                let cause = std::error::Error::source(why).map(ToString::to_string);
                let on_failure = self.on_failure.map(OnFailure::as_str);
                tracing::warn!(
                    cause,
                    on_failure,
                    "{why}; store.redis.on_failure decides on requests until Redis answers again"
                );
            }
        }
    }

    /// One line: which server answers, after how long, and what decided how many requests meanwhile.
    fn report_recovery(&self, server: Option<&RedisNode>, down_since: Option<Instant>) {
        let server = server.map(tracing::field::display);
        match down_since {
            None => tracing::info!(server, "Redis answers"),
            Some(since) => {
                let (down_ms, decided) = (since.elapsed().as_millis() as u64, self.decided.load(Ordering::Relaxed));
                let on_failure = self.on_failure.map(OnFailure::as_str);
                tracing::info!(server, down_ms, on_failure, decided, "Redis answers");
            }
        }
        self.recoveries.send_replace(());
    }
}
