//! Rates and latencies of the last minute, from the metrics. Nothing is counted for them: the cells are read every two seconds.

mod recorder;
mod report;
mod totals;

pub(crate) use recorder::{DecisionCell, Traffic};
pub(crate) use report::LatencyReport;
pub(crate) use totals::{HistogramTotals, RouteTotals};
