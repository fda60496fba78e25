//! This instance among those that share its Redis.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use super::pings::Pings;
use super::report::{InstanceReport, rfc3339};
use super::scripts::{ANSWER, BEAT};
use crate::accounts::host_name;
use crate::live_calls::{CallFilter, CallId, CallReport, LiveCalls};
use crate::shutdown::Shutdown;
use crate::store::{Redis, Script};

/// Letters and digits of an instance's id.
const ID_LENGTH: usize = 8;

/// This instance, and what it knows of the others.
pub(crate) struct Instances {
    pub(super) id: String,
    host: String,
    started_at: SystemTime,
    calls: Arc<LiveCalls>,
    shutdown: Shutdown,
    /// With Redis.
    pub(super) shared: Option<Shared>,
}

pub(super) struct Shared {
    pub(super) redis: Redis,
    pub(super) beat: Script,
    pub(super) answer: Script,
    /// The others, by the last heartbeat.
    pub(super) others: ArcSwap<Vec<InstanceReport>>,
    pub(super) pings: Mutex<Pings>,
}

/// A call that was told to end.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct EndedCall {
    /// The id of its token.
    pub(super) token: Option<String>,
}

impl Instances {
    /// This instance. `redis`: the one that it shares with others.
    pub(crate) fn new(redis: Option<Redis>, calls: Arc<LiveCalls>, shutdown: Shutdown) -> Self {
        let shared = redis.map(|redis| Shared {
            redis,
            beat: Script::new(BEAT),
            answer: Script::new(ANSWER),
            others: ArcSwap::default(),
            pings: Mutex::default(),
        });
        let id = std::iter::repeat_with(fastrand::alphanumeric).take(ID_LENGTH).collect();
        Self { id, host: host_name(), started_at: SystemTime::now(), calls, shutdown, shared }
    }

    /// The id of this instance.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The host that it runs on.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// When it was started.
    pub(crate) fn started_at(&self) -> SystemTime {
        self.started_at
    }

    /// The calls of this instance.
    pub(crate) fn calls(&self) -> &LiveCalls {
        &self.calls
    }

    /// All instances: this one, and the others as they were some seconds ago.
    pub(crate) fn all(&self) -> Vec<InstanceReport> {
        let mut all = vec![InstanceReport { seen_at: rfc3339(SystemTime::now()), ..self.report() }];
        if let Some(shared) = &self.shared {
            all.extend(shared.others.load().iter().cloned());
        }
        all
    }

    /// How long Redis takes to answer: as [`Pings::times`]; `None` without Redis.
    pub(crate) fn ping_times(&self) -> Option<[Option<Duration>; 3]> {
        Some(self.shared.as_ref()?.pings.lock().unwrap_or_else(PoisonError::into_inner).times())
    }

    pub(super) fn report(&self) -> InstanceReport {
        InstanceReport {
            id: self.id.clone(),
            host: self.host.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: rfc3339(self.started_at),
            seen_at: String::new(),
            draining: self.shutdown.is_announced(),
            calls: self.calls.len(),
        }
    }

    /// Up to `limit` calls of this instance that fit, the oldest first.
    pub(crate) fn own_calls(&self, filter: &CallFilter, after: Option<CallId>, limit: usize) -> Vec<CallReport> {
        let now = SystemTime::now();
        self.calls.page(filter, after, limit).iter().map(|call| call.report(&self.id, now)).collect()
    }

    /// Has a call of this instance end.
    pub(super) fn end_own(&self, id: CallId, reason: &str) -> Option<EndedCall> {
        let call = self.calls.end(id, reason)?;
        Some(EndedCall { token: call.token().map(|token| token.id.to_string()) })
    }
}

impl Shared {
    pub(super) fn key(&self, what: &str) -> String {
        format!("{}:{what}", self.redis.namespace())
    }
}
