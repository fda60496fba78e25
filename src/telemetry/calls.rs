//! The cells of one route's calls.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

/// Seconds; from a misdialled call to a conference.
pub(super) const CALL_BUCKETS: &[f64] = &[1.0, 5.0, 15.0, 60.0, 180.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0];
/// From whom bytes and messages come.
const FROM: [&str; 2] = ["client", "upstream"];

/// What is measured of calls, by route.
pub(super) struct CallFamilies {
    pub(super) open: IntGaugeVec,
    pub(super) seconds: HistogramVec,
    pub(super) bytes: IntCounterVec,
    pub(super) messages: IntCounterVec,
}

impl CallFamilies {
    pub(super) fn route(&self, name: &str) -> CallMetrics {
        let both = |family: &IntCounterVec| FROM.map(|from| family.with_label_values(&[name, from]));
        CallMetrics {
            open: self.open.with_label_values(&[name]),
            seconds: self.seconds.with_label_values(&[name]),
            bytes: both(&self.bytes),
            messages: both(&self.messages),
        }
    }
}

/// The cells of one route's calls.
pub struct CallMetrics {
    /// Calls open at this moment.
    pub open: IntGauge,
    seconds: Histogram,
    bytes: [IntCounter; 2],
    messages: [IntCounter; 2],
}

impl CallMetrics {
    /// Counts a call that has ended, with the bytes and messages from the client, and those from the upstream.
    pub fn ended(&self, took: Duration, bytes: [u64; 2], messages: [u64; 2]) {
        self.seconds.observe(took.as_secs_f64());
        for (cells, numbers) in [(&self.bytes, bytes), (&self.messages, messages)] {
            for (cell, number) in cells.iter().zip(numbers) {
                cell.inc_by(number);
            }
        }
    }
}
