//! Metrics of one name, made and registered in one go.

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, Result,
};

/// Makes metrics for a registry. Everything fails when a name is malformed or taken.
pub(super) struct Families<'a>(pub(super) &'a Registry);

impl Families<'_> {
    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(vec.clone()))?;
        Ok(vec)
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        let vec = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(vec.clone()))?;
        Ok(vec)
    }

    pub(super) fn histograms(&self, name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> Result<HistogramVec> {
        let vec = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?;
        self.0.register(Box::new(vec.clone()))?;
        Ok(vec)
    }

    /// One without labels.
    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge> {
        Ok(self.gauges(name, help, &[])?.with_label_values::<&str>(&[]))
    }

    /// One without labels.
    pub(super) fn counter(&self, name: &str, help: &str) -> Result<IntCounter> {
        Ok(self.counters(name, help, &[])?.with_label_values::<&str>(&[]))
    }
}
