//! First come, first served: the requests that wait for a connection while there are as many as allowed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify};

/// The first in the queue looks again after this time even if nothing was freed: an endpoint may be healthy again, or its peer may
/// allow more requests.
const RECHECK_INTERVAL: Duration = Duration::from_millis(250);

/// The requests of all workers that wait for a connection to one upstream.
#[derive(Default)]
pub(super) struct WaitQueues {
    requests: WaitQueue,
    /// What asks for a call or for events: when calls hold as many connections as they may, other requests must not wait behind it.
    calls: WaitQueue,
}

/// Requests that wait for the same kind of connection.
#[derive(Default)]
pub(super) struct WaitQueue {
    /// Held by the first in the queue. It serves in the order of the calls.
    first: Mutex<()>,
    freed: Notify,
    length: AtomicUsize,
}

/// One that waits, counted until it is dropped.
pub(super) struct Waiting<'a>(&'a AtomicUsize);

impl WaitQueues {
    pub(super) fn of(&self, is_call: bool) -> &WaitQueue {
        if is_call { &self.calls } else { &self.requests }
    }

    /// A connection was released or closed, or can carry one more request.
    pub(super) fn on_freed(&self) {
        for queue in [&self.requests, &self.calls] {
            if !queue.is_empty() {
                queue.freed.notify_one();
            }
        }
    }
}

impl WaitQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.length.load(Ordering::SeqCst) == 0
    }

    /// Waits until all earlier requests are served, and then until `look` finds something.
    pub(super) async fn wait<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        // Counted before the first look: whatever is freed after that wakes this queue.
        let (_waiting, _) = Waiting::count(&self.length);
        let _first = self.first.lock().await;
        loop {
            if let Some(found) = look() {
                return found;
            }
            let _ = tokio::time::timeout(RECHECK_INTERVAL, self.freed.notified()).await;
        }
    }
}

impl<'a> Waiting<'a> {
    /// Counts one more; also returns how many there were before.
    pub(super) fn count(counter: &'a AtomicUsize) -> (Self, usize) {
        let before = counter.fetch_add(1, Ordering::SeqCst);
        (Self(counter), before)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn requests_are_served_in_order_and_those_that_left_are_skipped() {
        let (queues, free) = (WaitQueues::default(), Cell::new(0_u32));
        let take = || free.get().checked_sub(1).map(|left| free.set(left));
        let queue = queues.of(false);
        let (mut first, mut second) = (Box::pin(queue.wait(take)), Box::pin(queue.wait(take)));
        let mut third = pin!(queue.wait(take));
        for waiting in [&mut first, &mut second] {
            assert!(waiting.now_or_never().is_none());
        }
        assert!(third.as_mut().now_or_never().is_none());
        free.set(1);
        queues.on_freed();
        assert!(second.as_mut().now_or_never().is_none(), "the second overtook the first");
        assert!(first.as_mut().now_or_never().is_some());
        drop((first, second));
        free.set(1);
        queues.on_freed();
        assert!(third.as_mut().now_or_never().is_some());
        assert!(queues.of(true).is_empty());
    }
}
