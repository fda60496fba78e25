//! What all connections of the sample upstream share: the calls, their clock and the shutdown.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::shutdown::Shutdown;

use super::call::CallRequest;
use super::calls::CallRegistry;

const TICK_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct VoiceService {
    calls: Mutex<CallRegistry>,
    changed: watch::Sender<()>,
    pub(super) shutdown: Shutdown,
}

impl VoiceService {
    /// With one sample call, so that the feed has events from the first second.
    pub(super) fn new() -> Self {
        let mut calls = CallRegistry::default();
        calls.place(CallRequest::sample(), SystemTime::now());
        Self { calls: Mutex::new(calls), changed: watch::Sender::new(()), shutdown: Shutdown::default() }
    }

    pub(super) fn calls(&self) -> MutexGuard<'_, CallRegistry> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes calls, and wakes everything that waits for events.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut CallRegistry) -> T) -> T {
        let outcome = change(&mut self.calls());
        self.changed.send_replace(());
        outcome
    }

    /// Sees every later [`Self::update`].
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(super) async fn run_clock(self: std::sync::Arc<Self>) {
        let mut clock = tokio::time::interval(TICK_INTERVAL);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        clock.reset();
        loop {
            tokio::select! {
                () = self.shutdown.draining() => return,
                _ = clock.tick() => self.update(|calls| calls.tick(SystemTime::now())),
            }
        }
    }
}
