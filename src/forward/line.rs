//! Who waits for a connection while there are as many as may be: a line in which nobody is passed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

/// Who is first looks again after this time, whatever happens: an endpoint may have come back, or its peer takes more requests.
const PAUSE: Duration = Duration::from_millis(250);

/// The requests of one worker that wait for a connection to one upstream.
pub(super) struct WaitQueues {
    any: Line,
    /// WebSockets where other requests share connections: they wait for what the others don't need.
    own: Line,
}

/// Those that wait for the same.
pub(super) struct Line {
    /// Held by who is first.
    first: Semaphore,
    freed: Notify,
    length: AtomicUsize,
}

struct Waiting<'a>(&'a AtomicUsize);

impl WaitQueues {
    pub(super) fn new() -> Self {
        Self { any: Line::new(), own: Line::new() }
    }

    /// `apart`: for a request that shares no connection, where others do.
    pub(super) fn of(&self, apart: bool) -> &Line {
        if apart { &self.own } else { &self.any }
    }

    /// A connection was released or closed, or has room for one more request.
    pub(super) fn freed(&self) {
        for line in [&self.any, &self.own] {
            if !line.is_empty() {
                line.freed.notify_one();
            }
        }
    }
}

impl Line {
    fn new() -> Self {
        Self { first: Semaphore::new(1), freed: Notify::new(), length: AtomicUsize::new(0) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length.load(Ordering::SeqCst) == 0
    }

    /// Waits until whoever came before is served, and then until `look` finds something.
    pub(super) async fn wait<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        // In line before the first look: what is freed after that is heard of.
        self.length.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.length);
        // Nobody closes the semaphore; it gives its permit in the order in which it was asked for.
        let _first = self.first.acquire().await;
        loop {
            if let Some(found) = look() {
                return found;
            }
            let _ = tokio::time::timeout(PAUSE, self.freed.notified()).await;
        }
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
    async fn who_came_first_is_served_first_and_who_left_is_passed() {
        let (lines, free) = (WaitQueues::new(), Cell::new(0_u32));
        let take = || free.get().checked_sub(1).map(|left| free.set(left));
        let line = lines.of(false);
        let (mut first, mut second) = (Box::pin(line.wait(take)), Box::pin(line.wait(take)));
        let mut third = pin!(line.wait(take));
        for waiting in [&mut first, &mut second] {
            assert!(waiting.now_or_never().is_none());
        }
        assert!(third.as_mut().now_or_never().is_none());
        free.set(1);
        lines.freed();
        assert!(second.as_mut().now_or_never().is_none(), "somebody was passed");
        assert!(first.as_mut().now_or_never().is_some());
        drop((first, second));
        free.set(1);
        lines.freed();
        assert!(third.as_mut().now_or_never().is_some());
        assert!(lines.of(true).is_empty());
    }
}
