//! The metrics of one route: requests by method and status, found by index instead of by label, and calls.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::cells::{CellVec, Counter, Histogram, Kind, UpDownCounter};
use super::families::{Families, LATENCY_BUCKETS, SeriesGuard};
use super::traffic::{HistogramTotals, RouteTotals};
use http::{Method, StatusCode};

const METHODS: [&str; 8] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "other"];
/// Statuses with a cell of their own; others are looked up by label.
const STATUSES: [u16; 40] = [
    200, 201, 202, 203, 204, 205, 206, 207, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404, 405, 406, 408, 409,
    410, 411, 412, 413, 414, 415, 417, 421, 422, 426, 429, 431, 499, 500, 502, 503, 504,
];

/// Statuses with a cell from the start: what begins with its first request is an increase for alerts.
const INITIAL_STATUSES: [StatusCode; 4] =
    [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS, StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE];

/// Seconds; from a misdialled call to a conference.
const CALL_BUCKETS: &[f64] = &[1.0, 5.0, 15.0, 60.0, 180.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0];
const SENDERS: [&str; 2] = ["client", "upstream"];

/// What requests of one route were answered with. It outlives a configuration, as the counters do.
struct SeenStatuses {
    /// For each method and status, once that was the answer.
    cells: Box<[OnceLock<Counter>]>,
    /// Requests with statuses that have no cell, by their class.
    others: [AtomicU64; 5],
}

/// The cells of one route.
pub struct RouteMetrics {
    name: Box<str>,
    requests: CellVec,
    seen: Arc<SeenStatuses>,
    pub(crate) seconds: Histogram,
    /// `None`: no call can begin on the route.
    pub(crate) calls: Option<CallMetrics>,
    _series: SeriesGuard,
}

impl RouteMetrics {
    /// With the cells for what requests of these methods can lead to. `before`: the same route by another configuration.
    pub(super) fn new(families: &Arc<Families>, name: &str, methods: &[Method], before: Option<&Self>) -> Self {
        let none_seen = || SeenStatuses {
            cells: (0..METHODS.len() * STATUSES.len()).map(|_| OnceLock::new()).collect(),
            others: Default::default(),
        };
        let route = Self {
            _series: families.keep(&[("route", name)]),
            name: name.into(),
            requests: families.cells("callgate_requests_total", Kind::Counter, &["route", "method", "status"]),
            seen: before.map_or_else(|| Arc::new(none_seen()), |before| before.seen.clone()),
            seconds: families.histogram("callgate_request_duration_seconds", LATENCY_BUCKETS, &[("route", name)]),
            calls: methods.contains(&Method::GET).then(|| CallMetrics::new(families, name)),
        };
        for method in methods {
            for status in INITIAL_STATUSES {
                route.cell(method, status, |_| ());
            }
        }
        route
    }

    pub(crate) fn count(&self, method: &Method, status: StatusCode) {
        self.cell(method, status, Counter::inc);
    }

    fn cell(&self, method: &Method, status: StatusCode, then: impl FnOnce(&Counter)) {
        let method = method_index(method);
        let by_label = || self.requests.with_label_values(&[&*self.name, METHODS[method], status.as_str()]).counter();
        match STATUSES.binary_search(&status.as_u16()) {
            Ok(index) => then(self.seen.cells[method * STATUSES.len() + index].get_or_init(by_label)),
            Err(_) => {
                self.seen.others[class_of(status.as_u16())].fetch_add(1, Ordering::Relaxed);
                then(&by_label());
            }
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// All that was counted so far.
    pub(crate) fn totals(&self) -> RouteTotals {
        let mut statuses = [0, 1, 2, 3, 4].map(|class: usize| self.seen.others[class].load(Ordering::Relaxed));
        for cells in self.seen.cells.chunks(STATUSES.len()) {
            for (status, cell) in STATUSES.iter().zip(cells) {
                statuses[class_of(*status)] += cell.get().map_or(0, Counter::get);
            }
        }
        RouteTotals { statuses, latency: HistogramTotals::of(&self.seconds) }
    }
}

/// The class of a status, from 0 for 1xx to 4 for 5xx and what is above.
fn class_of(status: u16) -> usize {
    usize::from(status / 100).clamp(1, 5) - 1
}

fn method_index(method: &Method) -> usize {
    METHODS.iter().position(|name| *name == method.as_str()).unwrap_or(METHODS.len() - 1)
}

/// The cells of one route's calls.
pub struct CallMetrics {
    pub(crate) open: UpDownCounter,
    seconds: Histogram,
    bytes: [Counter; 2],
    messages: [Counter; 2],
}

impl CallMetrics {
    pub(super) fn new(families: &Families, route: &str) -> Self {
        let by_sender = |name| SENDERS.map(|from| families.counter(name, &[("route", route), ("from", from)]));
        Self {
            open: families.up_down_counter("callgate_calls_open", &[("route", route)]),
            seconds: families.histogram("callgate_call_duration_seconds", CALL_BUCKETS, &[("route", route)]),
            bytes: by_sender("callgate_call_bytes_total"),
            messages: by_sender("callgate_call_messages_total"),
        }
    }

    /// Counts a call that has ended, with bytes and messages from the client and from the upstream.
    pub(crate) fn ended(&self, took: Duration, bytes: [u64; 2], messages: [u64; 2]) {
        self.seconds.observe(took);
        for (cells, numbers) in [(&self.bytes, bytes), (&self.messages, messages)] {
            for (cell, number) in cells.iter().zip(numbers) {
                cell.inc_by(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_sorted_for_the_search() {
        assert!(STATUSES.is_sorted());
    }

    #[test]
    fn every_request_is_counted_under_its_own_labels() {
        let metrics = crate::telemetry::Metrics::new().unwrap();
        let route = metrics.route("calls", &[Method::GET]);
        route.count(&Method::GET, StatusCode::OK);
        route.count(&Method::GET, StatusCode::OK);
        route.count(&Method::from_bytes(b"PURGE").unwrap(), StatusCode::from_u16(599).unwrap());
        let text = metrics.encode().unwrap();
        assert!(text.contains(r#"callgate_requests_total{method="GET",route="calls",status="200"} 2"#), "{text}");
        assert!(text.contains(r#"callgate_requests_total{method="GET",route="calls",status="502"} 0"#), "{text}");
        assert!(text.contains(r#"callgate_requests_total{method="other",route="calls",status="599"} 1"#), "{text}");
    }
}
