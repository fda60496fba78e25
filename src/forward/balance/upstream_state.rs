//! The endpoints of one upstream: choosing one for a request, counting failures, retries and requests in flight.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::config::{self, Balance, Balancing, RetryOn};
use crate::telemetry::{Metrics, UpstreamMetrics};

use super::budget::Budget;
use super::choose::{self, EndpointCandidate, RoundRobin};
use super::ejections::{Ejections, PastEjections};
use super::endpoint_state::{EndpointLoad, EndpointState};
use super::permits::{NoPermit, Permit, Permits};
use super::rendezvous;

/// Without ejection, so many failures in a row show that an endpoint is dead.
const MAX_FAILURES: u32 = 5;

/// The endpoints of one upstream.
pub(crate) struct UpstreamState {
    pub(super) name: Arc<str>,
    pub(super) config: Balancing,
    pub(super) endpoints: Vec<Arc<EndpointState>>,
    ejections: Option<Mutex<Ejections>>,
    /// Failures in a row by which an endpoint counts as dead.
    max_failures: u32,
    budget: Arc<Budget>,
    pub(crate) permits: Arc<Permits>,
    pub(crate) metrics: UpstreamMetrics,
    /// Whether health checks have judged its endpoints before, by another configuration.
    was_checked: bool,
    created: Instant,
}

impl UpstreamState {
    /// Takes over what `before` has of the same upstream and its endpoints: health and requests in flight always, budgets and permits
    /// if their settings are the same.
    pub(crate) fn new(upstream: &config::Upstream, metrics: &Metrics, before: Option<&Self>) -> Self {
        let config = upstream.balancing.clone();
        let labels: Vec<Arc<str>> = upstream.endpoints.iter().map(|endpoint| endpoint.to_string().into()).collect();
        let metrics = metrics.upstream(&upstream.name, &labels);
        let past =
            labels.iter().map(|label| before.and_then(|before| before.past_ejections(label)).unwrap_or_default());
        let past = past.collect();
        let was_checked = before.is_some_and(|before| before.config.health.is_some());
        let endpoints = labels.into_iter().zip(&config.shares).map(|(label, part)| {
            let known = before.and_then(|before| before.endpoints.iter().find(|known| known.label == label));
            let live = known.map(|known| known.live.clone()).unwrap_or_default();
            let state = EndpointState::new(label, *part, config.health.is_some(), live);
            if !was_checked {
                // What checks said in former times means nothing.
                state.set_down(false, 0);
            }
            Arc::new(state)
        });
        let budget = before.filter(|before| before.config.retry == config.retry).map(|before| before.budget.clone());
        let permits = before.filter(|before| before.config.has_same_caps(&config)).map(|before| before.permits.clone());
        let state = Self {
            name: upstream.name.clone(),
            ejections: config.ejection.map(|config| Mutex::new(Ejections::new(config, past))),
            max_failures: config.ejection.map_or(MAX_FAILURES, |ejection| ejection.failures),
            budget: budget.unwrap_or_else(|| Arc::new(Budget::new(config.retry.budget, config.retry.min_per_second))),
            permits: permits.unwrap_or_else(|| Arc::new(Permits::new(&config, &metrics))),
            endpoints: endpoints.collect(),
            metrics,
            was_checked,
            created: before.map_or_else(Instant::now, |before| before.created),
            config,
        };
        let now = state.now();
        for (endpoint, up) in state.endpoints.iter().zip(&state.metrics.up) {
            up.set(i64::from(state.is_up(endpoint, now)));
        }
        state
    }

    fn past_ejections(&self, label: &str) -> Option<PastEjections> {
        let index = self.endpoints.iter().position(|endpoint| &*endpoint.label == label)?;
        Some(self.ejections.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).past(index))
    }

    /// Milliseconds since this state was created; never 0.
    pub(crate) fn now(&self) -> u64 {
        self.created.elapsed().as_millis() as u64 + 1
    }

    /// A permit for one more request, which may have to wait for it.
    pub(crate) async fn admit(&self) -> Result<Permit, NoPermit> {
        let permit = self.permits.acquire().await?;
        self.budget.count_request(self.now());
        Ok(permit)
    }

    /// Chooses an available endpoint that is no backup, else an available backup, else any, as an attempt is better than none; never
    /// one that was `tried`. `key` is the hash of the request's key, if it has one.
    pub(crate) fn choose(
        &self,
        round_robin: &RoundRobin,
        key: Option<u64>,
        tried: &[usize],
        now: u64,
    ) -> Option<usize> {
        if let ([_], []) = (&self.endpoints[..], tried) {
            return Some(0);
        }
        let rank_of = move |endpoint: &EndpointState| match (endpoint.is_available(now), endpoint.part.backup) {
            (true, false) => 0,
            (true, true) => 1,
            (false, _) => 2,
        };
        let slow_start = self.config.slow_start;
        (0..=2).find_map(|rank| {
            let all = self.endpoints.iter().enumerate();
            let fitting = all.filter(move |(index, endpoint)| !tried.contains(index) && rank_of(endpoint) <= rank);
            let candidates = fitting
                .clone()
                .map(|(index, endpoint)| EndpointCandidate { index, weight: endpoint.weight(slow_start, now) });
            match (&self.config.balance, key) {
                (Balance::RoundRobin, _) => round_robin.next(candidates),
                (Balance::Hash(_), Some(key)) => {
                    let seeded =
                        |(index, endpoint): (usize, &Arc<EndpointState>)| (index, endpoint.seed, endpoint.part.weight);
                    rendezvous::choose(key, fitting.map(seeded))
                }
                (Balance::LeastRequests | Balance::Hash(_), _) => {
                    let in_flight = |index: usize| self.endpoints[index].in_flight();
                    choose::least_requests(candidates, in_flight, |below| fastrand::u64(..below))
                }
            }
        })
    }

    /// As [`UpstreamState::choose`], but only endpoints that have room. While healthy endpoints are full, the request waits for them
    /// and goes to no unhealthy one.
    pub(crate) fn choose_with_room(
        &self,
        round_robin: &RoundRobin,
        key: Option<u64>,
        tried: &[usize],
        has_room: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let now = self.now();
        let untried = || self.endpoints.iter().enumerate().filter(|(index, _)| !tried.contains(index));
        let is_any_available = untried().any(|(_, endpoint)| endpoint.is_available(now));
        let is_excluded = |(index, endpoint): &(usize, &Arc<EndpointState>)| {
            (is_any_available && !endpoint.is_available(now)) || !has_room(*index)
        };
        let excluded = untried().filter(is_excluded).map(|(index, _)| index);
        let excluded: SmallVec<[usize; 8]> = tried.iter().copied().chain(excluded).collect();
        self.choose(round_robin, key, &excluded, now)
    }

    /// The endpoints' requests in flight, for one worker to count.
    pub(crate) fn loads(&self) -> Vec<EndpointLoad> {
        self.endpoints.iter().map(|endpoint| endpoint.load()).collect()
    }

    /// Whether a request that failed so may be retried: this is configured, there are `attempts` left, and the budget allows it.
    pub(crate) fn may_retry(&self, on: RetryOn, attempts: u32) -> bool {
        if !self.retries_on(on) || attempts >= self.config.retry.attempts {
            return false;
        }
        let allowed = self.budget.try_retry(self.now());
        let counter = if allowed { &self.metrics.retries[on as usize] } else { &self.metrics.exhausted };
        counter.inc();
        allowed
    }

    /// Whether requests that failed so are retried at all.
    pub(crate) fn retries_on(&self, on: RetryOn) -> bool {
        self.config.retry.on.contains(&on)
    }

    /// An endpoint has answered without a gateway error.
    pub(crate) fn succeeded(&self, index: usize) {
        let failures = &self.endpoints[index].live.failures;
        // Not written to without need: all workers would wait for that cache line.
        if failures.load(Ordering::Relaxed) != 0 {
            failures.store(0, Ordering::Relaxed);
        }
    }

    /// A request to an endpoint has failed; `why` is for the log.
    pub(crate) fn failed(&self, index: usize, why: &'static str) {
        let failed = &self.endpoints[index];
        if failed.live.failures.fetch_add(1, Ordering::Relaxed) + 1 < self.max_failures {
            return;
        }
        let (Some(ejections), now) = (&self.ejections, self.now()) else { return };
        let mut ejections = ejections.lock().unwrap_or_else(PoisonError::into_inner);
        let mut others = self.endpoints.iter().enumerate().filter(|(other, _)| *other != index);
        if !others.any(|(_, other)| other.is_available(now)) {
            return;
        }
        let Some(until) = ejections.eject(index, now, fastrand::f64()) else { return };
        failed.live.ejected_until.store(until, Ordering::Relaxed);
        // Back in service, its first request decides: a failure ejects it again at once.
        failed.live.failures.store(self.max_failures - 1, Ordering::Relaxed);
        drop(ejections);
        self.metrics.ejections[index].inc();
        self.metrics.up[index].set(0);
        let (upstream, endpoint, length) = (&*self.name, &*failed.label, Duration::from_millis(until - now));
        tracing::warn!(upstream, endpoint, why, "requests to an endpoint failed; ejected for {length:?}");
    }

    /// Whether the requests to an endpoint fail, which stays in service because no other can take them. Health checks, if there are
    /// any, know better.
    pub(super) fn is_failing(&self, endpoint: &EndpointState) -> bool {
        self.config.health.is_none() && endpoint.live.failures.load(Ordering::Relaxed) >= self.max_failures
    }

    /// Whether an endpoint gets requests and answers them, as far as is known.
    pub(super) fn is_up(&self, endpoint: &EndpointState, now: u64) -> bool {
        endpoint.is_available(now) && !self.is_failing(endpoint)
    }

    /// What health checks have said of an endpoint by another configuration; `None`: nothing.
    pub(crate) fn known_health(&self, index: usize) -> Option<bool> {
        self.was_checked.then(|| self.endpoints[index].is_down())
    }

    /// Sets and logs the result of an endpoint's health checks, if it is new.
    pub(crate) fn set_health(&self, index: usize, down: bool, why: &str) {
        let (checked, now) = (&self.endpoints[index], self.now());
        if checked.is_down() == down {
            return;
        }
        checked.set_down(down, now);
        self.metrics.up[index].set(i64::from(self.is_up(checked, now)));
        let (upstream, endpoint) = (&*self.name, &*checked.label);
        if down {
            tracing::warn!(upstream, endpoint, why, "an endpoint fails its health checks; no requests go to it");
        } else {
            tracing::info!(upstream, endpoint, "an endpoint passes its health checks again; requests go to it");
        }
    }

    /// Requests and calls in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.endpoints.iter().map(|endpoint| endpoint.in_flight()).sum()
    }
}
