//! Metric families: all cells of one name, told apart by their labels.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::help::HELP;

/// Seconds; from a local response to a slow upstream.
pub(super) const LATENCY_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Labels of a cell, each with its value.
pub(super) type Labels<'a> = &'a [(&'static str, &'a str)];

/// Registers a family with the first of its cells. Panics if a name has no HELP text or is used for two kinds of metrics:
/// mistakes in this folder.
#[derive(Default)]
pub(super) struct Families {
    pub(super) registry: Registry,
    by_name: Mutex<HashMap<&'static str, Box<dyn Any + Send>>>,
}

impl Families {
    pub(super) fn counter(&self, name: &'static str, labels: Labels<'_>) -> IntCounter {
        let (names, values) = split(labels);
        self.counters(name, &names).with_label_values(&values)
    }

    pub(super) fn counters(&self, name: &'static str, labels: &[&str]) -> IntCounterVec {
        self.family(name, || IntCounterVec::new(Opts::new(name, help(name)), labels))
    }

    pub(super) fn gauge(&self, name: &'static str, labels: Labels<'_>) -> IntGauge {
        let (names, values) = split(labels);
        self.family(name, || IntGaugeVec::new(Opts::new(name, help(name)), &names)).with_label_values(&values)
    }

    pub(super) fn histogram(&self, name: &'static str, buckets: &[f64], labels: Labels<'_>) -> Histogram {
        let (names, values) = split(labels);
        let options = || HistogramOpts::new(name, help(name)).buckets(buckets.to_vec());
        self.family(name, || HistogramVec::new(options(), &names)).with_label_values(&values)
    }

    fn family<V: Collector + Clone + 'static>(
        &self,
        name: &'static str,
        make: impl FnOnce() -> prometheus::Result<V>,
    ) -> V {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let family = by_name.entry(name).or_insert_with(|| {
            let family = make().expect("names and labels of metrics are well-formed");
            self.registry.register(Box::new(family.clone())).expect("a name is registered once");
            Box::new(family)
        });
        family.downcast_ref::<V>().expect("a name belongs to one kind of metrics").clone()
    }
}

fn help(name: &str) -> &'static str {
    HELP.iter().find(|(known, _)| *known == name).expect("every metric has a HELP text").1
}

fn split<'a>(labels: Labels<'a>) -> (Vec<&'static str>, Vec<&'a str>) {
    labels.iter().copied().unzip()
}
