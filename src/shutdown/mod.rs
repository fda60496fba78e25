//! The end of an instance: what every long-lived task listens to, and what the drain waits for.

mod close_window;
mod counts;

use std::fmt;
use std::future::pending;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;

use close_window::CloseWindow;
use counts::Counts;

pub(crate) use counts::{CountGuard, Counted};

/// How long a task that is told to stop may take to close its connections.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Handle of the drain; clones share it, and count together.
#[derive(Clone)]
pub struct Shutdown {
    shared: Arc<Shared>,
    counts: Arc<Counts>,
}

struct Shared {
    /// A [`DrainPhase`]: it is read for every packet, so that a lock would be too dear.
    phase: AtomicU8,
    draining: CancellationToken,
    handed_over: CancellationToken,
    requests_cut: CancellationToken,
    ended: CancellationToken,
    /// `None` while calls go on.
    closing: watch::Sender<Option<CloseWindow>>,
    tasks: TaskTracker,
    counts: Mutex<Vec<Arc<Counts>>>,
    cut_requests: AtomicUsize,
    closed_calls: AtomicUsize,
}

/// How far the end of an instance has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum DrainPhase {
    /// There is no end in sight.
    Serving,
    /// Readiness fails; new connections are still taken.
    Announced,
    /// No new work; requests and calls in flight go on.
    Draining,
    /// Requests were cut; calls go on.
    RequestsCut,
    /// Nothing goes on any longer.
    Ended,
}

/// How far a drain has come, and what is left.
#[derive(Debug, Clone, Copy)]
pub struct DrainProgress {
    /// Clients' connections.
    pub connections: usize,
    /// Requests in flight that are no calls.
    pub requests: usize,
    /// Open calls: WebSockets, streams of events, gRPC.
    pub calls: usize,
    /// Requests that were cut.
    pub cut_requests: usize,
    /// Calls that were closed because the instance ends.
    pub closed_calls: usize,
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown").field("phase", &self.phase()).finish_non_exhaustive()
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        let counts = Arc::<Counts>::default();
        let shared = Shared {
            phase: AtomicU8::new(DrainPhase::Serving as u8),
            draining: CancellationToken::new(),
            handed_over: CancellationToken::new(),
            requests_cut: CancellationToken::new(),
            ended: CancellationToken::new(),
            closing: watch::Sender::default(),
            tasks: TaskTracker::new(),
            counts: Mutex::new(vec![counts.clone()]),
            cut_requests: AtomicUsize::new(0),
            closed_calls: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared), counts }
    }
}

impl Shutdown {
    /// A handle that counts for one worker.
    #[must_use]
    pub fn for_worker(&self) -> Self {
        let counts = Arc::<Counts>::default();
        self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner).push(counts.clone());
        Self { shared: self.shared.clone(), counts }
    }

    /// Announces the end: readiness fails from here on, while new connections are still taken.
    pub fn announce(&self) {
        self.enter(DrainPhase::Announced);
    }

    /// Whether the end was announced.
    #[must_use]
    pub fn is_announced(&self) -> bool {
        self.has_reached(DrainPhase::Announced)
    }

    /// No new work from here on; work in flight finishes.
    pub fn drain(&self) {
        self.enter(DrainPhase::Draining);
        self.shared.draining.cancel();
    }

    /// Another process accepts on the same sockets from here on: to be said before the drain. Then nobody may notice the end, so that
    /// connections which are just being made, and idle ones, get an answer to one more request.
    pub fn hand_over(&self) {
        self.shared.handed_over.cancel();
    }

    /// Whether another process has taken over.
    #[must_use]
    pub fn is_handed_over(&self) -> bool {
        self.shared.handed_over.is_cancelled()
    }

    /// Resolves when another process has taken over.
    pub fn handed_over(&self) -> WaitForCancellationFuture<'_> {
        self.shared.handed_over.cancelled()
    }

    /// Resolves when a connection on which no request has come yet is given up: at the drain, and behind a successor only when
    /// requests are cut.
    pub async fn gives_up_handshakes(&self) {
        self.draining().await;
        if self.is_handed_over() {
            self.requests_cut().await;
        }
    }

    /// Cuts the requests that are left; calls go on. Returns how many requests that were.
    pub fn cut_requests(&self) -> usize {
        let left = self.progress().requests;
        if !self.are_requests_cut() {
            self.shared.cut_requests.store(left, Ordering::Relaxed);
        }
        self.enter(DrainPhase::RequestsCut);
        self.shared.requests_cut.cancel();
        left
    }

    /// Closes the calls that are left, one by one over this time. Returns how many that were. Said again, it counts for those that
    /// are left then.
    pub fn close_calls(&self, spread: Duration) -> usize {
        let calls = self.progress().calls;
        self.shared.closing.send_replace(Some(CloseWindow::new(Instant::now(), spread, calls)));
        calls
    }

    /// Ends everything at once; tasks that are left have a second to close their connections.
    pub async fn end(&self) {
        self.drain();
        self.cut_requests();
        self.close_calls(Duration::ZERO);
        self.enter(DrainPhase::Ended);
        self.shared.ended.cancel();
        self.parted().await;
    }

    /// Resolves when every tracked task has ended.
    pub async fn idle(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Waits until every tracked task has ended, at most for `timeout`; what is left then is told to stop at once.
    pub async fn finish(&self, timeout: Duration) {
        let _ = tokio::time::timeout(timeout, self.idle()).await;
        self.end().await;
    }

    /// Resolves when every tracked task has ended, or a second after it was told to: tasks need a moment to say goodbye.
    pub async fn parted(&self) {
        self.ended().await;
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.shared.tasks.wait()).await;
    }

    /// Resolves when the drain begins.
    pub fn draining(&self) -> WaitForCancellationFuture<'_> {
        self.shared.draining.cancelled()
    }

    /// Whether the drain has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.has_reached(DrainPhase::Draining)
    }

    /// Resolves when requests are cut.
    pub fn requests_cut(&self) -> WaitForCancellationFuture<'_> {
        self.shared.requests_cut.cancelled()
    }

    /// Whether requests were cut.
    #[must_use]
    pub fn are_requests_cut(&self) -> bool {
        self.has_reached(DrainPhase::RequestsCut)
    }

    /// Resolves when nothing may go on any longer.
    pub fn ended(&self) -> WaitForCancellationFuture<'_> {
        self.shared.ended.cancelled()
    }

    /// Resolves when one call has to close. To be awaited by that call alone: each gets a moment of its own.
    pub async fn call_closes(&self) {
        let mut closing = self.shared.closing.subscribe();
        loop {
            let moment = closing.borrow_and_update().as_ref().map(CloseWindow::next_moment);
            let wait = async {
                match moment {
                    // Boxed: until then, every open call would keep room for a timer.
                    Some(moment) => Box::pin(sleep_until(moment)).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = wait => break,
                // Whatever announces it lives as long as this handle.
                _ = closing.changed() => {}
            }
        }
        self.shared.closed_calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the tasks that a drain waits for: connections, and the tunnels that outlive them.
    #[must_use]
    pub fn tasks(&self) -> &TaskTracker {
        &self.shared.tasks
    }

    /// Counts one of these until the guard is dropped.
    pub(crate) fn count(&self, what: Counted) -> CountGuard {
        CountGuard::new(&self.counts, what)
    }

    /// The same without a guard, for what is counted often: [`Shutdown::uncount`] must follow.
    pub(crate) fn count_one(&self, what: Counted) {
        self.counts.add(what);
    }

    /// One that was counted is over.
    pub(crate) fn uncount(&self, what: Counted) {
        self.counts.remove(what);
    }

    /// What is left. While work goes on, the numbers may miss each other by what happens meanwhile.
    #[must_use]
    pub fn progress(&self) -> DrainProgress {
        let shared = &self.shared;
        let counts = shared.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = |what| counts.iter().map(|worker| worker.of(what)).sum::<usize>();
        let calls = sum(Counted::Call);
        DrainProgress {
            connections: sum(Counted::Connection),
            requests: sum(Counted::Request).saturating_sub(calls),
            calls,
            cut_requests: shared.cut_requests.load(Ordering::Relaxed),
            closed_calls: shared.closed_calls.load(Ordering::Relaxed),
        }
    }

    fn phase(&self) -> DrainPhase {
        use DrainPhase::{Announced, Draining, Ended, RequestsCut, Serving};
        let reached = |phase: &DrainPhase| self.has_reached(*phase);
        [Ended, RequestsCut, Draining, Announced].into_iter().find(reached).unwrap_or(Serving)
    }

    fn has_reached(&self, phase: DrainPhase) -> bool {
        self.shared.phase.load(Ordering::Acquire) >= phase as u8
    }

    /// Phases only go forward.
    fn enter(&self, phase: DrainPhase) {
        self.shared.phase.fetch_max(phase as u8, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_no_requests_and_the_counts_of_workers_are_summed() {
        let shutdown = Shutdown::default();
        let workers = [shutdown.for_worker(), shutdown.for_worker()];
        let mut guards = Vec::new();
        for worker in &workers {
            guards.extend(
                [Counted::Connection, Counted::Request, Counted::Request, Counted::Call].map(|it| worker.count(it)),
            );
        }
        let left = |progress: DrainProgress| [progress.connections, progress.requests, progress.calls];
        assert_eq!(left(workers[0].progress()), [2, 2, 2]);
        guards.truncate(4);
        assert_eq!(left(shutdown.progress()), [1, 1, 1]);
        guards.clear();
        assert_eq!(left(shutdown.progress()), [0, 0, 0]);
    }

    #[test]
    fn phases_only_go_forward() {
        let shutdown = Shutdown::default();
        assert_eq!(shutdown.phase(), DrainPhase::Serving);
        shutdown.drain();
        shutdown.announce();
        assert_eq!(shutdown.phase(), DrainPhase::Draining);
        let _request = shutdown.count(Counted::Request);
        assert_eq!(shutdown.cut_requests(), 1);
        assert!(shutdown.are_requests_cut() && shutdown.is_draining() && shutdown.is_announced());
        assert_eq!(shutdown.progress().cut_requests, 1);
    }

    /// When each of some calls closes, in milliseconds from now.
    async fn closes(calls: Vec<tokio::task::JoinHandle<Instant>>, since: Instant) -> Vec<u128> {
        let mut at = Vec::new();
        for call in calls {
            at.push((call.await.unwrap() - since).as_millis());
        }
        at.sort_unstable();
        at
    }

    fn open_calls(shutdown: &Shutdown, count: usize) -> Vec<tokio::task::JoinHandle<Instant>> {
        let open = |_| {
            let shutdown = shutdown.clone();
            tokio::spawn(async move {
                let _counted = shutdown.count(Counted::Call);
                shutdown.call_closes().await;
                Instant::now()
            })
        };
        (0..count).map(open).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn each_call_closes_at_its_own_moment() {
        let shutdown = Shutdown::default();
        let calls = open_calls(&shutdown, 4);
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert_eq!(shutdown.close_calls(Duration::from_secs(2)), 4);
        assert_eq!(closes(calls, Instant::now()).await, [250, 750, 1_250, 1_750]);
        assert_eq!((shutdown.progress().calls, shutdown.progress().closed_calls), (0, 4));
        let late = open_calls(&shutdown, 1);
        let since = Instant::now();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(closes(late, since).await[0] <= 250, "the window is almost over");
    }

    #[tokio::test(start_paused = true)]
    async fn closes_can_be_hurried() {
        let shutdown = Shutdown::default();
        let calls = open_calls(&shutdown, 4);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let since = Instant::now();
        shutdown.close_calls(Duration::from_secs(40));
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(shutdown.close_calls(Duration::from_millis(300)), 3);
        assert_eq!(closes(calls, since).await, [5_000, 10_050, 10_150, 10_250]);
    }
}
