//! Reads the cells of the metrics now and then, and keeps what the last minutes have brought.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::super::cells::{Counter, Histogram};
use super::super::families::LATENCY_BUCKETS;
use super::super::metrics::DECISION_BUCKETS;
use super::super::route::RouteMetrics;
use super::report::{DecisionRate, LatencyReport, Point, RouteTraffic, StatusRates, TrafficReport, per_second};
use super::totals::{HistogramTotals, RouteTotals};

/// What rates are of.
const WINDOW: Duration = Duration::from_secs(60);
/// Points that are kept: five minutes of two seconds each.
const MAX_POINTS: usize = 150;
/// Of a route, every fifth moment is kept.
const ROUTE_STRIDE: u64 = 5;

/// The cell of decisions with one outcome from one source.
pub(crate) struct DecisionCell {
    /// `admitted` or `denied`.
    pub(crate) outcome: &'static str,
    pub(crate) source: &'static str,
    pub(crate) cell: Counter,
}

/// The traffic of the last minutes.
pub(crate) struct Traffic {
    decisions: Vec<DecisionCell>,
    decision_seconds: Histogram,
    history: Mutex<History>,
}

#[derive(Default)]
struct History {
    /// What was counted since the first moment, over all routes that there were.
    totals: Totals,
    moments: VecDeque<(Instant, Totals)>,
    routes: HashMap<Box<str>, RouteHistory>,
    points: VecDeque<Point>,
    count: u64,
}

#[derive(Clone, Default)]
struct Totals {
    requests: RouteTotals,
    /// In the order of [`Traffic::decisions`].
    decisions: Vec<u64>,
    decision_latency: HistogramTotals,
}

#[derive(Default)]
struct RouteHistory {
    now: RouteTotals,
    moments: VecDeque<(Instant, RouteTotals)>,
    seen: u64,
}

impl Traffic {
    /// Nothing is known at first.
    pub(crate) fn new(decisions: Vec<DecisionCell>, decision_seconds: Histogram) -> Self {
        Self { decisions, decision_seconds, history: Mutex::default() }
    }

    /// Reads the cells of all routes. `open`: calls and connections at the moment.
    pub(crate) fn sample<'a>(
        &self,
        routes: impl Iterator<Item = &'a RouteMetrics>,
        now: Instant,
        at: SystemTime,
        open: [usize; 2],
    ) {
        let mut history = self.lock();
        let history = &mut *history;
        let is_first = history.count == 0;
        history.count += 1;
        let count = history.count;
        for route in routes {
            let totals = route.totals();
            let known = history.routes.entry(route.name().into());
            let of_route = known.or_insert_with(|| {
                // What was counted before the first moment is not of this minute.
                let now = if is_first { totals.clone() } else { RouteTotals::default() };
                RouteHistory { now, ..RouteHistory::default() }
            });
            history.totals.requests.add_difference(&totals, &of_route.now);
            if of_route.moments.is_empty() || count.is_multiple_of(ROUTE_STRIDE) {
                let before = std::mem::take(&mut of_route.now);
                of_route.moments.push_back((now, if of_route.moments.is_empty() { before } else { totals.clone() }));
            }
            of_route.now = totals;
            of_route.seen = count;
            forget_old(&mut of_route.moments, now);
        }
        history.routes.retain(|_, route| route.seen == count);
        history.totals.decisions = self.decisions.iter().map(|decision| decision.cell.get()).collect();
        history.totals.decision_latency = HistogramTotals::of(&self.decision_seconds);
        let last = history.moments.back().cloned();
        history.moments.push_back((now, history.totals.clone()));
        forget_old(&mut history.moments, now);
        if let Some((then, before)) = last {
            if history.points.len() == MAX_POINTS {
                history.points.pop_front();
            }
            let point = self.point(&history.totals, &before, now - then, at, open);
            history.points.push_back(point);
        }
    }

    /// The last minute of all routes together.
    pub(crate) fn report(&self) -> TrafficReport {
        let history = self.lock();
        let none = Totals::default();
        let (over, before) = match (history.moments.front(), history.moments.back()) {
            (Some((first, before)), Some((last, _))) => (*last - *first, before),
            _ => (Duration::ZERO, &none),
        };
        let requests = history.totals.requests.since(&before.requests);
        let RouteTraffic { requests_per_second, statuses, latency_ms } =
            RouteTraffic::new(&requests, LATENCY_BUCKETS, over);
        let decisions = self.decisions.iter().zip(self.decided(&history.totals, before));
        let decisions = decisions.map(|(DecisionCell { outcome, source, .. }, count)| DecisionRate {
            outcome,
            source,
            per_second: per_second(count, over),
        });
        let decision_latency = history.totals.decision_latency.since(&before.decision_latency);
        TrafficReport {
            window_seconds: over.as_secs_f64().round() as u64,
            requests_per_second,
            statuses,
            latency_ms,
            decisions: decisions.collect(),
            decision_latency_ms: LatencyReport::new(&decision_latency, DECISION_BUCKETS),
        }
    }

    /// The last minute of one route.
    pub(crate) fn route(&self, name: &str, now: Instant) -> RouteTraffic {
        let history = self.lock();
        let Some(route) = history.routes.get(name) else {
            return RouteTraffic::new(&RouteTotals::default(), LATENCY_BUCKETS, Duration::ZERO);
        };
        let none = (now, RouteTotals::default());
        let (then, before) = route.moments.front().unwrap_or(&none);
        RouteTraffic::new(&route.now.since(before), LATENCY_BUCKETS, now.saturating_duration_since(*then))
    }

    /// The points of the last minutes, the oldest first.
    pub(crate) fn points(&self) -> Vec<Point> {
        self.lock().points.iter().cloned().collect()
    }

    /// The newest point.
    pub(crate) fn newest(&self) -> Option<Point> {
        self.lock().points.back().cloned()
    }

    fn point(&self, now: &Totals, before: &Totals, over: Duration, at: SystemTime, open: [usize; 2]) -> Point {
        let requests = now.requests.since(&before.requests);
        let latency = LatencyReport::new(&requests.latency, LATENCY_BUCKETS);
        let decided = self.decided(now, before);
        let with = |outcome: &str| {
            let counts = self.decisions.iter().zip(&decided).filter(|(decision, _)| decision.outcome == outcome);
            per_second(counts.map(|(_, count)| count).sum(), over)
        };
        let [calls, connections] = open;
        Point {
            at: humantime::format_rfc3339_seconds(at).to_string(),
            statuses: StatusRates::new(requests.statuses, over),
            p50_ms: latency.p50,
            p95_ms: latency.p95,
            p99_ms: latency.p99,
            admitted: with("admitted"),
            denied: with("denied"),
            calls,
            connections,
        }
    }

    /// How many decisions of each kind there were between two moments.
    fn decided(&self, now: &Totals, before: &Totals) -> Vec<u64> {
        let before = before.decisions.iter().copied().chain(std::iter::repeat(0));
        now.decisions.iter().zip(before).map(|(now, before)| now.saturating_sub(before)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps one moment that is at least as old as the window.
fn forget_old<T>(moments: &mut VecDeque<(Instant, T)>, now: Instant) {
    while moments.get(1).is_some_and(|(then, _)| now.saturating_duration_since(*then) >= WINDOW) {
        moments.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};

    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn rates_are_those_of_the_last_minute_and_survive_a_route() {
        let metrics = Metrics::new().unwrap();
        let (first, second) = (metrics.route("a", &[Method::GET]), metrics.route("b", &[Method::GET]));
        let admitted = metrics.decisions("admitted", "redis");
        let cells = vec![DecisionCell { outcome: "admitted", source: "redis", cell: admitted.clone() }];
        let traffic = Traffic::new(cells, metrics.decision_seconds.clone());
        let began = Instant::now();
        // Counted before the first moment.
        first.count(&Method::GET, StatusCode::OK);
        let mut routes = vec![&*first, &*second];
        let answer = |route: &RouteMetrics, status: u16, seconds: f64| {
            route.count(&Method::GET, StatusCode::from_u16(status).unwrap());
            route.seconds.observe(Duration::from_secs_f64(seconds));
        };
        for second_of in 0..=35_u64 {
            if second_of > 0 {
                answer(&first, 200, 0.004);
                answer(&second, if second_of % 2 == 0 { 503 } else { 599 }, 0.2);
                admitted.inc_by(2);
            }
            let now = began + Duration::from_secs(2 * second_of);
            traffic.sample(routes.iter().copied(), now, SystemTime::UNIX_EPOCH, [3, 4]);
        }
        let report = serde_json::to_value(traffic.report()).unwrap();
        assert_eq!((&report["window_seconds"], &report["requests_per_second"]), (&60.into(), &1.0.into()));
        assert_eq!((&report["statuses"]["2xx"], &report["statuses"]["5xx"]), (&0.5.into(), &0.5.into()));
        assert_eq!(report["decisions"][0]["per_second"], 1.0);
        let p95 = report["latency_ms"]["p95"].as_f64().unwrap();
        assert!((100.0..250.0).contains(&p95), "{p95}");
        let now = began + Duration::from_secs(70);
        let of_route = serde_json::to_value(traffic.route("a", now)).unwrap();
        assert!((0.4..0.6).contains(&of_route["requests_per_second"].as_f64().unwrap()), "{of_route}");
        assert_eq!(of_route["statuses"]["5xx"], 0.0);
        let points = serde_json::to_value(traffic.points()).unwrap();
        assert_eq!(
            (points.as_array().unwrap().len(), &points[0]["calls"], &points[0]["admitted"]),
            (35, &3.into(), &1.0.into())
        );
        // A route that is gone takes nothing of what there was along.
        routes.pop();
        traffic.sample(routes.iter().copied(), began + Duration::from_secs(72), SystemTime::UNIX_EPOCH, [3, 4]);
        let report = serde_json::to_value(traffic.report()).unwrap();
        assert!(report["statuses"]["5xx"].as_f64().unwrap() > 0.4, "{report}");
        assert_eq!(serde_json::to_value(traffic.route("b", now)).unwrap()["requests_per_second"], 0.0);
    }

    /// What a route was answered with before is not new because of a reload.
    #[test]
    fn a_reload_brings_no_burst() {
        let metrics = Metrics::new().unwrap();
        let traffic = Traffic::new(Vec::new(), metrics.decision_seconds.clone());
        let (began, before) = (Instant::now(), metrics.route("a", &[Method::GET]));
        let sample = |route: &RouteMetrics, second: u64| {
            let now = began + Duration::from_secs(second);
            traffic.sample([route].into_iter(), now, SystemTime::UNIX_EPOCH, [0, 0]);
        };
        let statuses = || serde_json::to_value(traffic.report()).unwrap()["statuses"]["4xx"].as_f64().unwrap();
        sample(&before, 0);
        for _ in 0..100 {
            before.count(&Method::GET, StatusCode::NOT_FOUND);
            before.count(&Method::GET, StatusCode::IM_A_TEAPOT);
        }
        sample(&before, 10);
        let rate = statuses();
        let after = metrics.route_after("a", &[Method::GET], Some(&before));
        sample(&after, 12);
        after.count(&Method::GET, StatusCode::NOT_FOUND);
        sample(&after, 14);
        assert!(rate > 19.0 && statuses() * 14.0 < 201.5, "{rate} {}", statuses());
    }
}
