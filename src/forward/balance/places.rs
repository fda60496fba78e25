//! The cap on what an upstream is given at one time, and the queue before it and before the caps on connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Balancing;

/// The places of one upstream, over all workers.
pub(super) struct Places {
    /// It gives places in the order in which they were asked for, and passes nobody who waits.
    free: Option<Arc<Semaphore>>,
    waiting: AtomicUsize,
    max_waiting: usize,
    max_wait: Duration,
}

/// A place under the cap; dropped, it is the next one's.
pub(crate) struct Place {
    _permit: Option<OwnedSemaphorePermit>,
    /// Since when it was waited for, if it was.
    pub(in crate::forward) since: Option<Instant>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// As many wait as may.
    QueueFull,
    /// Nothing was free in time.
    Waited(Duration),
}

struct Waiting<'a>(&'a AtomicUsize);

impl Places {
    pub(super) fn new(config: &Balancing) -> Self {
        Self {
            free: config.max_requests.map(|most| Arc::new(Semaphore::new(most as usize))),
            waiting: AtomicUsize::new(0),
            max_waiting: config.max_waiting as usize,
            max_wait: config.max_wait,
        }
    }

    /// A place, at once or when one is free.
    ///
    /// # Errors
    /// [`NoPlace`]
    pub(super) async fn take(&self) -> Result<Place, NoPlace> {
        if let Some(place) = self.spare() {
            return Ok(place);
        }
        let Some(free) = &self.free else { return Ok(Place { _permit: None, since: None }) };
        let since = Instant::now();
        // Nobody closes the semaphore.
        self.wait(since, free.clone().acquire_owned())
            .await
            .map(|permit| Place { _permit: permit.ok(), since: Some(since) })
    }

    /// Waits for something in the queue that all share who wait, from `since` on as long as one may.
    ///
    /// # Errors
    /// [`NoPlace`]
    pub(super) async fn wait<T>(&self, since: Instant, awaited: impl Future<Output = T>) -> Result<T, NoPlace> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= self.max_waiting {
            return Err(NoPlace::QueueFull);
        }
        let waited = tokio::time::timeout_at((since + self.max_wait).into(), awaited).await;
        waited.map_err(|_| NoPlace::Waited(self.max_wait))
    }

    /// A place that is free, and that nobody waits for.
    pub(super) fn spare(&self) -> Option<Place> {
        let Some(free) = &self.free else { return Some(Place { _permit: None, since: None }) };
        free.clone().try_acquire_owned().ok().map(|permit| Place { _permit: Some(permit), since: None })
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
