//! Metric families: all cells of one name, told apart by their labels.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};

use super::cells::{Cell, CellVec, Counter, Histogram, Kind, UpDownCounter};
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
    by_name: Mutex<HashMap<&'static str, Box<dyn Family>>>,
    /// How many [`SeriesGuard`]s there are for the series with these labels.
    kept: Mutex<HashMap<OwnedLabels, usize>>,
}

type OwnedLabels = Vec<(&'static str, Box<str>)>;

/// Keeps the series that have certain labels, for example those of one route. When the last guard of the same labels is dropped,
/// all of them are removed: a route that the configuration no longer has is not reported any longer.
pub struct SeriesGuard {
    families: Arc<Families>,
    labels: OwnedLabels,
}

/// One family, whatever its kind.
trait Family: Any + Send {
    fn as_any(&self) -> &dyn Any;

    /// Removes the series that have all these labels.
    fn remove(&self, labels: &OwnedLabels);
}

impl<T: MetricVecBuilder> Family for MetricVec<T>
where
    Self: Collector + 'static,
{
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn remove(&self, labels: &OwnedLabels) {
        let known = self.desc().iter().flat_map(|desc| &desc.variable_labels).collect::<Vec<_>>();
        if !labels.iter().all(|(name, _)| known.iter().any(|known| known == name)) {
            return;
        }
        for family in self.collect() {
            for metric in family.get_metric() {
                let of_metric: HashMap<&str, &str> =
                    metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
                if labels.iter().all(|(name, value)| of_metric.get(name) == Some(&&**value)) {
                    // Somebody else can't have removed it: that needs this guard.
                    let _ = MetricVec::remove(self, &of_metric);
                }
            }
        }
    }
}

impl Families {
    pub(super) fn counter(&self, name: &'static str, labels: Labels<'_>) -> Counter {
        self.cell(name, Kind::Counter, labels).counter()
    }

    pub(super) fn up_down_counter(&self, name: &'static str, labels: Labels<'_>) -> UpDownCounter {
        self.cell(name, Kind::UpDown, labels).up_down()
    }

    pub(super) fn histogram(&self, name: &'static str, buckets: &[f64], labels: Labels<'_>) -> Histogram {
        self.cell(name, Kind::histogram(buckets), labels).histogram()
    }

    /// A gauge that is set, and seldom.
    pub(super) fn gauge(&self, name: &'static str, labels: Labels<'_>) -> IntGauge {
        let (names, values) = split(labels);
        self.family(name, || IntGaugeVec::new(Opts::new(name, help(name)), &names)).with_label_values(&values)
    }

    pub(super) fn cells(&self, name: &'static str, kind: Kind, labels: &[&'static str]) -> CellVec {
        let labels = || labels.iter().map(|name| (*name).to_owned()).collect();
        self.family(name, || kind.family(Opts::new(name, help(name)).variable_labels(labels())))
    }

    fn cell(&self, name: &'static str, kind: Kind, labels: Labels<'_>) -> Cell {
        let (names, values) = split(labels);
        self.cells(name, kind, &names).with_label_values(&values)
    }

    /// Keeps the series with these labels, for as long as the guard lives. Take it before the first of their cells.
    pub(super) fn keep(self: &Arc<Self>, labels: Labels<'_>) -> SeriesGuard {
        let labels: OwnedLabels = labels.iter().map(|(name, value)| (*name, (*value).into())).collect();
        *lock(&self.kept).entry(labels.clone()).or_default() += 1;
        SeriesGuard { families: self.clone(), labels }
    }

    fn family<V: Family + Collector + Clone + 'static>(
        &self,
        name: &'static str,
        make: impl FnOnce() -> prometheus::Result<V>,
    ) -> V {
        let mut by_name = lock(&self.by_name);
        let family = by_name.entry(name).or_insert_with(|| {
            let family = make().expect("names and labels of metrics are well-formed");
            self.registry.register(Box::new(family.clone())).expect("a name is registered once");
            Box::new(family)
        });
        family.as_any().downcast_ref::<V>().expect("a name belongs to one kind of metrics").clone()
    }
}

impl Drop for SeriesGuard {
    fn drop(&mut self) {
        // Held to the end, so that nobody takes a guard for series that are being removed.
        let mut kept = lock(&self.families.kept);
        let Some(guards) = kept.get_mut(&self.labels) else { return };
        *guards -= 1;
        if *guards == 0 {
            kept.remove(&self.labels);
            for family in lock(&self.families.by_name).values() {
                family.remove(&self.labels);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn help(name: &str) -> &'static str {
    HELP.iter().find(|(known, _)| *known == name).expect("every metric has a HELP text").1
}

fn split<'a>(labels: Labels<'a>) -> (Vec<&'static str>, Vec<&'a str>) {
    labels.iter().copied().unzip()
}
