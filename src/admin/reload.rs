//! The configuration read again while the process runs, and what came of it.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::error::ApiError;
use super::request::ApiRequest;
use super::response::{AdminResponse, json_response};
use crate::config::Problem;
use crate::telemetry::LogError;
use crate::tokens::Date;

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

/// `POST /api/reload`
pub(super) async fn reload(request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    let (answer, answered) = oneshot::channel();
    let ending = || ApiError::Unavailable("This process is ending.".to_owned());
    request.backend.reload.send(answer).await.map_err(|_| ending())?;
    let report = answered.await.map_err(|_| ending())?.map_err(|failure| ApiError::Configuration(failure.problems))?;
    Ok(json_response(StatusCode::OK, &report_json(&report)))
}

/// `PUT /api/log-level`
pub(super) async fn set_log_level(mut request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    let level = request.body.require_text("level");
    if let Err(error @ LogError::Level(_)) = request.backend.log.set_level(&level) {
        request.body.error("level", &format!("is no filter: {error}"));
    }
    request.body.finish()?;
    tracing::info!(level, "the log level was changed; the next reload sets that of the configuration");
    Ok(json_response(StatusCode::OK, &json!({ "level": level })))
}

/// `GET /status`
pub(super) async fn status(request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    let backend = request.backend;
    let last = backend.last_reload.load();
    let last = last.as_deref().map(|(at, result)| {
        let mut last = match result {
            Ok(report) => report_json(report),
            Err(failure) => json!({ "errors": problems_json(&failure.problems) }),
        };
        last["at"] = json!(Date::new(*at));
        last["successful"] = result.is_ok().into();
        last
    });
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started_at": Date::new(backend.started_at),
        "draining": backend.shutdown.is_announced(),
        "configuration": {
            "file": backend.config.source.display().to_string(),
            "in_force_since": Date::new(backend.in_force_since),
            "last_reload": last,
        },
    });
    Ok(json_response(StatusCode::OK, &body))
}

fn report_json(report: &ReloadReport) -> Value {
    json!({ "changes": report.changes, "warnings": problems_json(&report.warnings) })
}

fn problems_json(problems: &[Problem]) -> Value {
    problems.iter().map(Problem::to_json).collect()
}
