//! The drain: how an instance ends, phase by phase, and what the log and the metrics say of it meanwhile.

use std::time::Duration;

use tokio::time::{Instant, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::config::DrainSettings;
use crate::shutdown::{CLOSE_TIMEOUT, DrainProgress, Shutdown};
use crate::telemetry::DrainMetrics;

/// After a second signal, how long requests may go on at most, and over how long at most calls are closed.
pub(super) const HURRIED: Duration = Duration::from_secs(5);
/// How often the metrics are updated.
const UPDATE_INTERVAL: Duration = Duration::from_secs(1);
/// When the log says for the first time what is left, and how often after that.
const FIRST_LINE: Duration = Duration::from_secs(10);
const LINE_INTERVAL: Duration = Duration::from_secs(60);

/// A drain in progress.
pub(super) struct Drain<'a> {
    pub(super) settings: DrainSettings,
    pub(super) shutdown: &'a Shutdown,
    pub(super) metrics: &'a DrainMetrics,
    /// Cancelled when the drain has to hurry.
    pub(super) hurry: CancellationToken,
}

impl Drain<'_> {
    /// Returns when nothing is left, or nothing that is left may go on.
    pub(super) async fn run(self) {
        let phases = async {
            self.announce().await;
            self.shutdown.drain();
            let began = Instant::now();
            let bounds = async {
                tokio::join!(self.cut_requests(began), self.close_calls(began));
                sleep(CLOSE_TIMEOUT).await;
            };
            tokio::select! {
                () = self.shutdown.idle() => {}
                () = bounds => {}
            }
        };
        tokio::select! {
            () = phases => {}
            () = self.report() => {}
        }
        self.shutdown.end().await;
        self.update();
    }

    /// Readiness fails, and for the delay that is all.
    async fn announce(&self) {
        let DrainSettings { delay, timeout, calls, spread } = self.settings;
        self.shutdown.announce();
        self.metrics.draining.set(1);
        let left = self.update();
        tracing::info!(
            ?delay,
            ?timeout,
            ?calls,
            ?spread,
            connections = left.connections,
            requests = left.requests,
            open_calls = left.calls,
            "draining"
        );
        self.wait(Instant::now() + delay, Duration::ZERO).await;
    }

    async fn cut_requests(&self, began: Instant) {
        self.wait(began + self.settings.timeout, HURRIED).await;
        let cut = self.shutdown.cut_requests();
        if cut > 0 {
            tracing::warn!(cut, "{}: {cut} requests were cut", self.reason("drain.timeout has passed"));
        }
    }

    async fn close_calls(&self, began: Instant) {
        self.wait(began + self.settings.calls, Duration::ZERO).await;
        let is_hurried = self.hurry.is_cancelled();
        let spread = if is_hurried { self.settings.spread.min(HURRIED) } else { self.settings.spread };
        let calls = self.shutdown.close_calls(spread);
        if calls > 0 {
            tracing::warn!(calls, ?spread, "{}: closing {calls} calls", self.reason("drain.calls has passed"));
        }
        let mut end = Instant::now() + spread;
        if !is_hurried {
            tokio::select! {
                () = sleep_until(end) => {}
                () = self.hurry.cancelled() => {
                    let left = end.saturating_duration_since(Instant::now()).min(HURRIED);
                    self.shutdown.close_calls(left);
                    end = Instant::now() + left;
                }
            }
        }
        sleep_until(end).await;
    }

    /// Why work ends that could go on: its time is over, or that is not waited for.
    fn reason(&self, deadline: &'static str) -> &'static str {
        if self.hurry.is_cancelled() { "a second signal hurries the drain" } else { deadline }
    }

    /// Waits until then; from a second signal on, no longer than for `hurried`.
    async fn wait(&self, until: Instant, hurried: Duration) {
        tokio::select! {
            () = sleep_until(until) => {}
            () = self.hurry.cancelled() => sleep_until(until.min(Instant::now() + hurried)).await,
        }
    }

    /// Says now and then what is left, for as long as it is polled.
    async fn report(&self) {
        let (began, mut next) = (Instant::now(), FIRST_LINE);
        let mut ticks = interval(UPDATE_INTERVAL);
        loop {
            ticks.tick().await;
            let DrainProgress { connections, requests, calls, .. } = self.update();
            if began.elapsed() >= next {
                next += LINE_INTERVAL;
                tracing::info!(
                    connections,
                    requests,
                    calls,
                    "still draining: {requests} requests and {calls} calls are left"
                );
            }
        }
    }

    fn update(&self) -> DrainProgress {
        let progress = self.shutdown.progress();
        let left = [progress.connections, progress.requests, progress.calls];
        let gauges = [&self.metrics.connections, &self.metrics.requests, &self.metrics.calls];
        for (gauge, left) in gauges.into_iter().zip(left) {
            gauge.set(i64::try_from(left).unwrap_or(i64::MAX));
        }
        progress
    }
}

#[cfg(test)]
mod tests {
    use crate::shutdown::Counted;
    use crate::telemetry::Metrics;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const SETTINGS: DrainSettings = DrainSettings {
        delay: SECOND,
        timeout: Duration::from_secs(30),
        calls: Duration::from_secs(3_600),
        spread: Duration::from_secs(10),
    };

    /// What the tasks of one drain have lived through, in milliseconds since its beginning.
    #[derive(Debug, PartialEq, Eq)]
    struct Lived {
        /// When the request was cut.
        request: Option<u128>,
        /// When the calls were closed.
        calls: Vec<u128>,
        /// When the drain was over.
        drain: u128,
    }

    /// A drain with one request and two calls, that begins at once and is hurried after `hurried`.
    async fn drain(settings: DrainSettings, requests: usize, calls: usize, hurried: Option<Duration>) -> Lived {
        let (shutdown, metrics, began) = (Shutdown::default(), Metrics::new().unwrap(), Instant::now());
        let request = |_| {
            let shutdown = shutdown.clone();
            shutdown.clone().tasks().spawn(async move {
                let _counted = shutdown.count(Counted::Request);
                shutdown.requests_cut().await;
                began.elapsed().as_millis()
            })
        };
        let call = |_| {
            let shutdown = shutdown.clone();
            shutdown.clone().tasks().spawn(async move {
                let _counted = [Counted::Request, Counted::Call].map(|what| shutdown.count(what));
                shutdown.call_closes().await;
                began.elapsed().as_millis()
            })
        };
        let requests: Vec<_> = (0..requests).map(request).collect();
        let calls: Vec<_> = (0..calls).map(call).collect();
        tokio::task::yield_now().await;
        let hurry = CancellationToken::new();
        let later = hurry.clone();
        if let Some(hurried) = hurried {
            tokio::spawn(async move {
                sleep_until(began + hurried).await;
                later.cancel();
            });
        }
        Drain { settings, shutdown: &shutdown, metrics: &metrics.drain, hurry }.run().await;
        let drain = began.elapsed().as_millis();
        let mut lived = Lived { request: None, calls: Vec::new(), drain };
        for request in requests {
            lived.request = Some(request.await.unwrap());
        }
        for call in calls {
            lived.calls.push(call.await.unwrap());
        }
        lived.calls.sort_unstable();
        lived
    }

    #[tokio::test(start_paused = true)]
    async fn requests_and_calls_have_deadlines_of_their_own() {
        let lived = drain(SETTINGS, 1, 2, None).await;
        assert_eq!(lived, Lived { request: Some(31_000), calls: vec![3_603_500, 3_608_500], drain: 3_608_500 });
        let calls_first = DrainSettings { calls: SECOND, spread: SECOND, ..SETTINGS };
        let lived = drain(calls_first, 1, 1, None).await;
        assert_eq!(lived, Lived { request: Some(31_000), calls: vec![2_500], drain: 31_000 });
    }

    #[tokio::test(start_paused = true)]
    async fn with_nothing_left_it_is_over_at_once() {
        assert_eq!(drain(SETTINGS, 0, 0, None).await.drain, 1_000);
        assert_eq!(drain(SETTINGS, 1, 0, None).await.drain, 31_000, "no call is waited for");
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_hurries_whatever_the_phase() {
        let after = |seconds: u64| Some(Duration::from_millis(seconds * 1_000 + 500));
        // In the delay, which is over then.
        let lived = drain(SETTINGS, 1, 1, after(0)).await;
        assert_eq!(lived, Lived { request: Some(5_500), calls: vec![3_000], drain: 5_500 });
        // Requests keep an earlier deadline.
        let lived = drain(SETTINGS, 1, 1, after(29)).await;
        assert_eq!(lived, Lived { request: Some(31_000), calls: vec![32_000], drain: 32_000 });
        // While calls are being closed: the second of them would have its turn after 7.5 seconds.
        let lived = drain(SETTINGS, 0, 2, after(3_604)).await;
        assert_eq!(lived, Lived { request: None, calls: vec![3_603_500, 3_607_000], drain: 3_607_000 });
        // A spread that is shorter than the hurry stays.
        let lived = drain(DrainSettings { spread: SECOND, ..SETTINGS }, 0, 2, after(10)).await;
        assert_eq!(lived, Lived { request: None, calls: vec![10_750, 11_250], drain: 11_250 });
    }
}
