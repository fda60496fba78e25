//! What this process is and serves by, and changes of that while it runs.

use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::backend::AdminBackend;
use super::error::ApiError;
use super::reload::ReloadReport;
use super::request::ApiRequest;
use super::response::{AdminResponse, json_response};
use crate::config::{self, Problem};
use crate::tokens::Date;

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
    if let Err(what) = config::log_level(&level) {
        request.body.error("level", &what.replace("TEXT", &format!("{level:?}")));
    }
    request.body.finish()?;
    // A filter that passed the check is one.
    let _ = request.backend.log.set_level(&level);
    tracing::info!(level, "the log level was changed; the next reload sets that of the configuration");
    Ok(json_response(StatusCode::OK, &json!({ "level": level })))
}

/// `GET /api/configuration`
pub(super) async fn show(mut request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    request.query.finish()?;
    let AdminBackend { config, in_force_since, .. } = request.backend;
    let body = json!({
        "file": config.source.display().to_string(),
        "in_force_since": Date::new(*in_force_since),
        "text": &*config.text,
        "warnings": problems_json(&config.warnings),
    });
    Ok(json_response(StatusCode::OK, &body))
}

/// What came of the last reload; null before the first.
pub(super) fn last_reload_json(backend: &AdminBackend) -> Option<Value> {
    let last = backend.last_reload.load();
    let (at, result) = last.as_deref()?;
    let mut last = match result {
        Ok(report) => report_json(report),
        Err(failure) => {
            let [errors, warnings] = config::parted_json(&failure.problems);
            json!({ "errors": errors, "warnings": warnings })
        }
    };
    last["at"] = json!(Date::new(*at));
    last["successful"] = result.is_ok().into();
    Some(last)
}

fn report_json(report: &ReloadReport) -> Value {
    json!({ "changes": report.changes, "warnings": problems_json(&report.warnings) })
}

fn problems_json(problems: &[Problem]) -> Value {
    problems.iter().map(Problem::to_json).collect()
}
