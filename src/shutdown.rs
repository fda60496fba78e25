//! The end of an instance: what every long-lived task listens to, and what the drain waits for.

use std::time::Duration;

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;

/// How long a task that is told to stop may take to close its connections.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Handle of the drain; clones share it.
#[derive(Clone, Default)]
pub struct Shutdown {
    closing: CancellationToken,
    draining: CancellationToken,
    ended: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// Announces the end: readiness fails from here on, while new connections are still taken.
    pub fn announce(&self) {
        self.closing.cancel();
    }

    /// Whether the end was announced.
    #[must_use]
    pub fn is_announced(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// No new work from here on; work in flight finishes.
    pub fn drain(&self) {
        self.closing.cancel();
        self.draining.cancel();
    }

    /// Waits until every tracked task has ended, at most for `timeout`; what is left then is told to stop at once.
    /// Returns how many tasks that were.
    pub async fn finish(&self, timeout: Duration) -> usize {
        self.tasks.close();
        if tokio::time::timeout(timeout, self.tasks.wait()).await.is_ok() {
            self.ended.cancel();
            return 0;
        }
        let left = self.tasks.len();
        self.ended.cancel();
        self.parted().await;
        left
    }

    /// Resolves when every tracked task has ended, or a second after it was told to: tasks need a moment to say goodbye.
    pub async fn parted(&self) {
        self.ended().await;
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.tasks.wait()).await;
    }

    /// Resolves when the drain begins.
    pub fn draining(&self) -> WaitForCancellationFuture<'_> {
        self.draining.cancelled()
    }

    /// Whether the drain has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Resolves when nothing may go on any longer.
    pub fn ended(&self) -> WaitForCancellationFuture<'_> {
        self.ended.cancelled()
    }

    /// Counts the tasks that a drain waits for: connections, and the tunnels that outlive them.
    #[must_use]
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }
}
