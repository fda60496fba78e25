//! What the metrics have counted so far, and the difference between two such moments.

use super::super::cells::Histogram;

/// Classes of statuses: 1xx to 5xx.
pub(crate) const CLASSES: usize = 5;

/// The buckets of a histogram: how many values were at most its bound, and all of them as the last.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct HistogramTotals(Vec<u64>);

/// What one route has counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct RouteTotals {
    /// Requests by the class of their status.
    pub(crate) statuses: [u64; CLASSES],
    /// Their durations.
    pub(crate) latency: HistogramTotals,
}

impl HistogramTotals {
    /// What a histogram has counted so far.
    pub(crate) fn of(histogram: &Histogram) -> Self {
        Self(histogram.cumulative())
    }

    /// Adds what was counted between two moments.
    pub(super) fn add_difference(&mut self, now: &Self, before: &Self) {
        self.0.resize(self.0.len().max(now.0.len()), 0);
        for (index, (sum, now)) in self.0.iter_mut().zip(&now.0).enumerate() {
            *sum += now.saturating_sub(before.0.get(index).copied().unwrap_or(0));
        }
    }

    /// What was counted since then.
    pub(super) fn since(&self, before: &Self) -> Self {
        let mut difference = Self::default();
        difference.add_difference(self, before);
        difference
    }

    /// The value that this share of the values does not exceed, as if those of a bucket were spread evenly; `None` if there are none.
    /// What lies above the last bound counts as that bound.
    pub(super) fn quantile(&self, bounds: &[f64], share: f64) -> Option<f64> {
        let count = *self.0.last().filter(|count| **count > 0)?;
        let rank = share * count as f64;
        let bucket = self.0.iter().position(|below| *below as f64 >= rank)?;
        let upper = *bounds.get(bucket).or(bounds.last())?;
        if bucket >= bounds.len() {
            return Some(upper);
        }
        let (lower, below) = match bucket.checked_sub(1) {
            Some(before) => (bounds[before], self.0[before]),
            None => (0.0, 0),
        };
        let inside = (self.0[bucket] - below) as f64;
        Some(if inside > 0.0 { lower + (upper - lower) * (rank - below as f64) / inside } else { upper })
    }
}

impl RouteTotals {
    pub(super) fn add_difference(&mut self, now: &Self, before: &Self) {
        for (sum, (now, before)) in self.statuses.iter_mut().zip(now.statuses.iter().zip(before.statuses)) {
            *sum += now.saturating_sub(before);
        }
        self.latency.add_difference(&now.latency, &before.latency);
    }

    pub(super) fn since(&self, before: &Self) -> Self {
        let mut difference = Self::default();
        difference.add_difference(self, before);
        difference
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_inside_their_bucket() {
        let bounds = [0.01, 0.1, 1.0];
        // 10 up to 10 ms, 80 up to 100 ms, 8 up to a second, 2 above.
        let totals = HistogramTotals(vec![10, 90, 98, 100]);
        let at = |share| totals.quantile(&bounds, share).unwrap();
        assert!((at(0.05) - 0.005).abs() < 1e-9 && (at(0.5) - 0.055).abs() < 1e-9);
        assert!((at(0.94) - 0.55).abs() < 1e-9);
        assert!((at(0.99) - 1.0).abs() < 1e-9, "above the last bound");
        assert_eq!(HistogramTotals(vec![0, 0, 0, 0]).quantile(&bounds, 0.5), None);
        assert_eq!(HistogramTotals::default().quantile(&bounds, 0.5), None);
    }

    #[test]
    fn differences_count_from_nothing_too() {
        let totals = |statuses, buckets: &[u64]| RouteTotals { statuses, latency: HistogramTotals(buckets.to_vec()) };
        let (before, now) = (totals([1, 2, 3, 4, 5], &[1, 2]), totals([1, 4, 3, 4, 6], &[2, 5]));
        assert_eq!(now.since(&before), totals([0, 2, 0, 0, 1], &[1, 3]));
        assert_eq!(now.since(&RouteTotals::default()), now);
        assert_eq!(before.since(&now), totals([0; 5], &[0, 0]), "cells that began anew");
    }
}
