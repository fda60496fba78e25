//! The configuration read again while the process runs: how that is asked for, and what comes of it.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use tokio::sync::{mpsc, oneshot};

use crate::config::Problem;

/// What a reload has changed.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReloadReport {
    /// One short text each.
    pub changes: Vec<String>,
    /// What somebody should look at.
    pub warnings: Vec<Problem>,
}

/// Why the configuration that was in force stays.
#[derive(Debug, Clone)]
pub(crate) struct ReloadFailure {
    /// At least one error, and warnings.
    pub problems: Vec<Problem>,
}

pub(crate) type ReloadResult = Result<ReloadReport, ReloadFailure>;

/// Asks the process to read its configuration again.
pub(crate) type ReloadRequests = mpsc::Sender<oneshot::Sender<ReloadResult>>;

/// The last reload: when, and what came of it; nothing before the first.
pub(crate) type LastReload = Arc<ArcSwapOption<(SystemTime, ReloadResult)>>;
