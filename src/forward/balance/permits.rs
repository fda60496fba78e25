//! The cap on an upstream's requests in flight, and the queue for it and for the caps on connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Balancing;
use crate::forward::wait_queue::Waiting;
use crate::telemetry::{Counter, UpstreamMetrics};

/// The permits of one upstream, for all workers.
pub(crate) struct Permits {
    /// First come, first served; `None` without a cap.
    semaphore: Option<Arc<Semaphore>>,
    waiting: AtomicUsize,
    max_waiting: usize,
    max_wait: Duration,
    queue_full: Counter,
    waited: Counter,
}

/// The right to send one request; dropped, the next request may have it.
#[derive(Default)]
pub(crate) struct Permit {
    _permit: Option<OwnedSemaphorePermit>,
    /// Since when it was waited for, if it was.
    pub(crate) waiting_since: Option<Instant>,
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPermit {
    /// As many requests wait as allowed.
    #[error("its queue is full (max_waiting)")]
    QueueFull,
    /// None was free in time.
    #[error("none was free for {0:?} (max_wait)")]
    Waited(Duration),
    /// A stream of events was the answer to a request that did not ask for one.
    #[error("an unannounced stream of events can't wait")]
    Unannounced,
}

impl Permits {
    pub(super) fn new(config: &Balancing, metrics: &UpstreamMetrics) -> Self {
        Self {
            semaphore: config.max_requests.map(|max| Arc::new(Semaphore::new(max as usize))),
            waiting: AtomicUsize::new(0),
            max_waiting: config.max_waiting as usize,
            max_wait: config.max_wait,
            queue_full: metrics.queue_full.clone(),
            waited: metrics.waited.clone(),
        }
    }

    pub(super) async fn acquire(&self) -> Result<Permit, NoPermit> {
        if let Some(permit) = self.try_acquire() {
            return Ok(permit);
        }
        let Some(semaphore) = &self.semaphore else { return Ok(Permit::default()) };
        let since = Instant::now();
        let permit = self.wait(since, semaphore.clone().acquire_owned()).await?;
        // The semaphore is never closed.
        Ok(Permit { _permit: permit.ok(), waiting_since: Some(since) })
    }

    /// Waits for something in the queue, from `since` on for at most `max_wait`.
    pub(crate) async fn wait<T>(&self, since: Instant, awaited: impl Future<Output = T>) -> Result<T, NoPermit> {
        let (_waiting, before) = Waiting::count(&self.waiting);
        if before >= self.max_waiting {
            self.queue_full.inc();
            return Err(NoPermit::QueueFull);
        }
        let waited = tokio::time::timeout_at((since + self.max_wait).into(), awaited).await;
        waited.map_err(|_| NoPermit::Waited(self.max_wait)).inspect_err(|_| self.waited.inc())
    }

    /// A permit if one is free and no request waits for it.
    pub(crate) fn try_acquire(&self) -> Option<Permit> {
        let Some(semaphore) = &self.semaphore else { return Some(Permit::default()) };
        let permit = semaphore.clone().try_acquire_owned().ok()?;
        Some(Permit { _permit: Some(permit), waiting_since: None })
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}
