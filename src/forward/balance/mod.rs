//! The endpoints of all upstreams as the whole process sees them: who gets the next request, who is left out, what may be tried
//! again, and how much is under way. One for all workers.

mod budget;
mod choose;
mod eject;
mod hash;
mod places;
mod report;
mod standing;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::sync::Semaphore;

use crate::config::{self, Balance, Balancing, RetryOn};
use crate::telemetry::{BalanceMetrics, Metrics};

use budget::Budget;
use choose::Candidate;
use eject::Ejections;
use places::Places;
use standing::Standing;

pub(super) use choose::RoundRobin;
pub(super) use hash::hash;
pub(crate) use places::{NoPlace, Place};
pub use report::{EndpointReport, UpstreamReport};
pub(crate) use standing::InFlight;

/// All upstreams of a process.
pub struct Upstreams {
    rosters: Vec<Arc<UpstreamState>>,
    /// Places for copies of requests, by the name of the route that has a mirror.
    copies: HashMap<Arc<str>, Arc<Semaphore>>,
}

/// The endpoints of one upstream.
pub(super) struct UpstreamState {
    name: Arc<str>,
    config: Balancing,
    endpoints: Vec<Arc<Standing>>,
    ejections: Option<Mutex<Ejections>>,
    budget: Budget,
    places: Places,
    metrics: BalanceMetrics,
    began: Instant,
}

impl Upstreams {
    /// With everybody in service.
    #[must_use]
    pub fn new(config: &config::Config, metrics: &Metrics) -> Arc<Self> {
        let roster = |upstream: &Arc<config::Upstream>| Arc::new(UpstreamState::new(upstream, metrics));
        let copies = config.routes.iter().filter_map(|route| {
            let places = Semaphore::new(route.mirror.as_ref()?.max_copies);
            Some((route.name.clone(), Arc::new(places)))
        });
        Arc::new(Self { rosters: config.upstreams.iter().map(roster).collect(), copies: copies.collect() })
    }

    /// One, by its place in the configuration.
    pub(super) fn roster(&self, index: usize) -> Arc<UpstreamState> {
        self.rosters[index].clone()
    }

    /// How many copies of a route's requests there may be, if it has a mirror.
    pub(super) fn copies(&self, route: &str) -> Option<Arc<Semaphore>> {
        self.copies.get(route).cloned()
    }

    /// How all of them are.
    #[must_use]
    pub fn report(&self) -> Vec<UpstreamReport> {
        self.rosters.iter().map(|roster| roster.report()).collect()
    }
}

impl UpstreamState {
    fn new(upstream: &config::Upstream, metrics: &Metrics) -> Self {
        let config = upstream.balancing.clone();
        let labels: Vec<Arc<str>> = upstream.endpoints.iter().map(|endpoint| endpoint.to_string().into()).collect();
        let metrics = metrics.balance(&upstream.name, &labels);
        let endpoints =
            labels.into_iter().zip(&config.shares).map(|(label, share)| Arc::new(Standing::new(label, *share)));
        let endpoints: Vec<_> = endpoints.collect();
        Self {
            name: upstream.name.clone(),
            ejections: config.ejection.map(|config| Mutex::new(Ejections::new(config, endpoints.len()))),
            budget: Budget::new(config.retry.budget, config.retry.min_per_second),
            places: Places::new(&config),
            endpoints,
            metrics,
            began: Instant::now(),
            config,
        }
    }

    /// Milliseconds on the clock of this roster; never 0.
    pub(super) fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64 + 1
    }

    /// A place for one more request, which may have to wait for it.
    ///
    /// # Errors
    /// [`NoPlace`]
    pub(super) async fn admit(&self) -> Result<Place, NoPlace> {
        let place = self.places.take().await;
        match &place {
            Ok(_) => self.budget.asked(self.now()),
            Err(why) => self.turned_away(*why),
        }
        place
    }

    /// Waits for something else in the same queue, from `since` on.
    ///
    /// # Errors
    /// [`NoPlace`]
    pub(super) async fn wait<T>(&self, since: Instant, awaited: impl Future<Output = T>) -> Result<T, NoPlace> {
        self.places.wait(since, awaited).await.inspect_err(|why| self.turned_away(*why))
    }

    fn turned_away(&self, why: NoPlace) {
        match why {
            NoPlace::QueueFull => self.metrics.queue_full.inc(),
            NoPlace::Waited(_) => self.metrics.waited.inc(),
        }
    }

    /// A place that is free now, for a request that is worth none that has to wait.
    pub(super) fn spare_place(&self) -> Option<Place> {
        self.places.spare()
    }

    /// Whom to ask: who is available and no backup, else a backup, else anybody, for a try is better than none; never who was
    /// `tried`. `key` is what the request is known by, if it has that.
    pub(super) fn choose(&self, turns: &RoundRobin, key: Option<u64>, tried: &[usize], now: u64) -> Option<usize> {
        let primary = |standing: &Standing| !standing.part.backup && standing.is_available(now);
        let backup = |standing: &Standing| standing.part.backup && standing.is_available(now);
        self.pick(turns, key, tried, now, primary)
            .or_else(|| self.pick(turns, key, tried, now, backup))
            .or_else(|| self.pick(turns, key, tried, now, |_| true))
    }

    /// As [`UpstreamState::choose`], of those alone that have room. Who is not well gets nothing because others are full: it is waited for
    /// these.
    pub(super) fn choose_with_room(
        &self,
        turns: &RoundRobin,
        key: Option<u64>,
        tried: &[usize],
        now: u64,
        has_room: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let untried = || self.endpoints.iter().enumerate().filter(|(index, _)| !tried.contains(index));
        let is_anybody_well = untried().any(|(_, standing)| standing.is_available(now));
        let is_no_choice = |(index, standing): &(usize, &Arc<Standing>)| {
            (is_anybody_well && !standing.is_available(now)) || !has_room(*index)
        };
        let without = untried().filter(is_no_choice).map(|(index, _)| index);
        let without: SmallVec<[usize; 8]> = tried.iter().copied().chain(without).collect();
        self.choose(turns, key, &without, now)
    }

    fn pick(
        &self,
        turns: &RoundRobin,
        key: Option<u64>,
        tried: &[usize],
        now: u64,
        fits: impl Fn(&Standing) -> bool + Clone,
    ) -> Option<usize> {
        let all = self.endpoints.iter().enumerate();
        let fitting = all.filter(move |(index, standing)| !tried.contains(index) && fits(standing));
        let slow_start = self.config.slow_start;
        let candidates = fitting.clone().map(|(index, standing)| Candidate {
            index,
            weight: standing.weight(slow_start, now),
            in_flight: standing.in_flight(),
        });
        match (&self.config.balance, key) {
            (Balance::RoundRobin, _) => turns.next(candidates),
            (Balance::Hash(_), Some(key)) => {
                choose::by_key(key, fitting.map(|(index, standing)| (index, standing.seed, standing.part.weight)))
            }
            (Balance::LeastRequests | Balance::Hash(_), _) => {
                choose::least_requests(candidates, |below| fastrand::u64(..below))
            }
        }
    }

    /// A request goes to this endpoint.
    pub(super) fn begin(&self, index: usize) -> InFlight {
        self.endpoints[index].begin()
    }

    /// Whether what failed so may be tried again: it is configured, there are `attempts` left, and the budget allows it.
    pub(super) fn may_retry(&self, on: RetryOn, attempts: u32, now: u64) -> bool {
        if !self.retries_on(on) || attempts >= self.config.retry.attempts {
            return false;
        }
        let allowed = self.budget.spend(now);
        if allowed {
            self.metrics.retries[on as usize].inc()
        } else {
            self.metrics.exhausted.inc()
        }
        allowed
    }

    /// Whether requests are tried again that failed so.
    pub(super) fn retries_on(&self, on: RetryOn) -> bool {
        self.config.retry.on.contains(&on)
    }

    /// An endpoint has answered, and not for want of somebody behind it.
    pub(super) fn succeeded(&self, index: usize) {
        let failures = &self.endpoints[index].failures;
        // Not written to when there is nothing to change: all workers would wait for that line of memory.
        if failures.load(Ordering::Relaxed) != 0 {
            failures.store(0, Ordering::Relaxed);
        }
    }

    /// A request to an endpoint has failed; `why` is for the log.
    pub(super) fn failed(&self, index: usize, why: &'static str) {
        let (Some(ejections), Some(config)) = (&self.ejections, &self.config.ejection) else { return };
        let (standing, now) = (&self.endpoints[index], self.now());
        if standing.failures.fetch_add(1, Ordering::Relaxed) + 1 < config.failures {
            return;
        }
        let mut ejections = ejections.lock().unwrap_or_else(PoisonError::into_inner);
        let others = self.endpoints.iter().enumerate().filter(|(other, _)| *other != index);
        if !others.into_iter().any(|(_, other)| other.is_available(now)) {
            return;
        }
        let Some(until) = ejections.eject(index, now, fastrand::f64()) else { return };
        standing.eject(until);
        // Back in service, its first request decides: a good one makes it whole, a bad one ejects it again.
        standing.failures.store(config.failures - 1, Ordering::Relaxed);
        drop(ejections);
        self.metrics.ejections[index].inc();
        self.metrics.up[index].set(0);
        let (upstream, endpoint, length) = (&*self.name, &*standing.label, Duration::from_millis(until - now));
        tracing::warn!(upstream, endpoint, why, "an endpoint fails: it is left out for {length:?}");
    }
}
