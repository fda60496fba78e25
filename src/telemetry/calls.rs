//! The metrics of one route's calls.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};

use super::families::Families;

/// Seconds; from a misdialled call to a conference.
const CALL_BUCKETS: &[f64] = &[1.0, 5.0, 15.0, 60.0, 180.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0];
const SENDERS: [&str; 2] = ["client", "upstream"];

/// The cells of one route's calls.
pub struct CallMetrics {
    pub(crate) open: IntGauge,
    seconds: Histogram,
    bytes: [IntCounter; 2],
    messages: [IntCounter; 2],
}

impl CallMetrics {
    pub(super) fn new(families: &Families, route: &str) -> Self {
        let by_sender = |name| SENDERS.map(|from| families.counter(name, &[("route", route), ("from", from)]));
        Self {
            open: families.gauge("callgate_calls_open", &[("route", route)]),
            seconds: families.histogram("callgate_call_duration_seconds", CALL_BUCKETS, &[("route", route)]),
            bytes: by_sender("callgate_call_bytes_total"),
            messages: by_sender("callgate_call_messages_total"),
        }
    }

    /// Counts a call that has ended, with bytes and messages from the client and from the upstream.
    pub(crate) fn ended(&self, took: Duration, bytes: [u64; 2], messages: [u64; 2]) {
        self.seconds.observe(took.as_secs_f64());
        for (cells, numbers) in [(&self.bytes, bytes), (&self.messages, messages)] {
            for (cell, number) in cells.iter().zip(numbers) {
                cell.inc_by(number);
            }
        }
    }
}
