//! The cells of metrics that requests change: counters, histograms, and gauges that go up and down. Each worker counts in its own, and a
//! scrape reads their sum.

use std::sync::Arc;
use std::time::Duration;

use prometheus::core::{Describer, Metric, MetricVec, MetricVecBuilder};
use prometheus::proto::{self, LabelPair, MetricType};
use prometheus::{Opts, Result};

use crate::per_worker::Numbers;

/// A number that only grows.
#[derive(Debug, Clone)]
pub struct Counter(Arc<Numbers>);

/// A number that grows and falls.
#[derive(Debug, Clone)]
pub struct UpDownCounter(Arc<Numbers>);

/// How often durations were below each bound, and their sum.
#[derive(Debug, Clone)]
pub struct Histogram {
    /// A number for each bound, one for what is above the last, and the sum in [`unit`]s.
    numbers: Arc<Numbers>,
    bounds: Arc<[Duration]>,
}

/// A counter of no family.
impl Default for Counter {
    fn default() -> Self {
        Self(Arc::new(Numbers::new(1)))
    }
}

impl Counter {
    pub(crate) fn inc(&self) {
        self.inc_by(1);
    }

    pub(crate) fn inc_by(&self, number: u64) {
        self.0.add(0, number);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.sum(0)
    }
}

impl UpDownCounter {
    pub(crate) fn inc(&self) {
        self.0.add(0, 1);
    }

    pub(crate) fn dec(&self) {
        self.0.add(0, 1_u64.wrapping_neg());
    }

    pub(crate) fn get(&self) -> i64 {
        self.0.sum(0).cast_signed()
    }
}

impl Histogram {
    pub(crate) fn observe(&self, took: Duration) {
        let bucket = self.bounds.iter().position(|bound| took <= *bound).unwrap_or(self.bounds.len());
        self.numbers.add(bucket, 1);
        self.numbers.add(self.bounds.len() + 1, (took.as_nanos() / unit(&self.bounds)) as u64);
    }

    /// How many durations were at most each bound, and all of them as the last.
    pub(crate) fn cumulative(&self) -> Vec<u64> {
        let counts = (0..=self.bounds.len()).map(|bucket| self.numbers.sum(bucket));
        counts
            .scan(0, |all, count| {
                *all += count;
                Some(*all)
            })
            .collect()
    }
}

/// Nanoseconds of one unit of a sum. Nanoseconds of 100,000 calls at a time would need more than 64 bits after two days, microseconds
/// after six years. Only what is short is summed more finely.
fn unit(bounds: &[Duration]) -> u128 {
    if bounds.first().is_some_and(|bound| *bound < Duration::from_micros(100)) { 1 } else { 1_000 }
}

/// The cell of one series, of any kind.
#[derive(Clone)]
pub(super) struct Cell {
    numbers: Arc<Numbers>,
    kind: Kind,
    labels: Arc<[LabelPair]>,
}

/// What the numbers of a cell mean.
#[derive(Clone)]
pub(super) enum Kind {
    Counter,
    UpDown,
    /// With its bounds.
    Histogram(Arc<[Duration]>),
}

/// All cells of one name.
pub(super) type CellVec = MetricVec<Kind>;

impl Kind {
    /// A histogram with these bounds in seconds.
    pub(super) fn histogram(bounds: &[f64]) -> Self {
        Self::Histogram(bounds.iter().map(|bound| Duration::from_secs_f64(*bound)).collect())
    }

    /// A family without cells.
    pub(super) fn family(self, options: Opts) -> Result<CellVec> {
        let kind = match self {
            Self::Counter => MetricType::COUNTER,
            Self::UpDown => MetricType::GAUGE,
            Self::Histogram(_) => MetricType::HISTOGRAM,
        };
        MetricVec::create(kind, self, options)
    }
}

impl MetricVecBuilder for Kind {
    type M = Cell;
    type P = Opts;

    fn build<V: AsRef<str>>(&self, options: &Opts, values: &[V]) -> Result<Cell> {
        let pair = |(name, value): (&String, &V)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.clone());
            pair.set_value(value.as_ref().to_owned());
            pair
        };
        let mut labels: Vec<_> = options.describe()?.variable_labels.iter().zip(values).map(pair).collect();
        labels.sort();
        let len = match self {
            Self::Counter | Self::UpDown => 1,
            Self::Histogram(bounds) => bounds.len() + 2,
        };
        Ok(Cell { numbers: Arc::new(Numbers::new(len)), kind: self.clone(), labels: labels.into() })
    }
}

impl Cell {
    pub(super) fn counter(self) -> Counter {
        Counter(self.numbers)
    }

    pub(super) fn up_down(self) -> UpDownCounter {
        UpDownCounter(self.numbers)
    }

    pub(super) fn histogram(self) -> Histogram {
        let bounds = match self.kind {
            Kind::Histogram(bounds) => bounds,
            Kind::Counter | Kind::UpDown => Arc::default(),
        };
        Histogram { numbers: self.numbers, bounds }
    }
}

impl Metric for Cell {
    fn metric(&self) -> proto::Metric {
        let mut metric = proto::Metric::from_label(self.labels.to_vec());
        match &self.kind {
            Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(self.numbers.sum(0) as f64);
                metric.set_counter(counter);
            }
            Kind::UpDown => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(self.numbers.sum(0).cast_signed() as f64);
                metric.set_gauge(gauge);
            }
            Kind::Histogram(bounds) => metric.set_histogram(histogram(&self.numbers, bounds)),
        }
        metric
    }
}

fn histogram(numbers: &Numbers, bounds: &[Duration]) -> proto::Histogram {
    let mut histogram = proto::Histogram::default();
    let mut count = 0;
    let buckets = bounds.iter().enumerate().map(|(index, bound)| {
        count += numbers.sum(index);
        let mut bucket = proto::Bucket::default();
        bucket.set_cumulative_count(count);
        bucket.set_upper_bound(bound.as_secs_f64());
        bucket
    });
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(count + numbers.sum(bounds.len()));
    histogram.set_sample_sum(numbers.sum(bounds.len() + 1) as f64 * unit(bounds) as f64 / 1e9);
    histogram
}

#[cfg(test)]
mod tests {
    use prometheus::core::Collector;

    use super::*;

    #[test]
    fn a_histogram_counts_each_duration_in_its_bucket() {
        let family = Kind::histogram(&[0.001, 0.5, 2.0]).family(Opts::new("h", "help")).unwrap();
        let histogram = family.with_label_values::<&str>(&[]).histogram();
        for micros in [0, 1_000, 1_001, 500_000, 2_000_000, 2_000_001, 9_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let collected = family.collect();
        let seen = collected[0].get_metric()[0].get_histogram();
        let buckets = seen.get_bucket().iter().map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
        assert_eq!(buckets.collect::<Vec<_>>(), [(0.001, 2), (0.5, 4), (2.0, 5)]);
        assert_eq!((seen.get_sample_count(), seen.get_sample_sum()), (7, 13.502_002));
    }
}
