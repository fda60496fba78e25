//! How the upstreams are, as this process sees them.

use http::StatusCode;
use serde_json::json;

use super::Call;
use super::answer::{Answer, json};
use super::problem::Problem;

/// `GET /api/upstreams`: each with its endpoints.
pub(super) fn list(call: Call<'_>) -> Result<Answer, Problem> {
    call.query.done()?;
    Ok(json(StatusCode::OK, &json!({ "upstreams": call.admin.desk.upstreams.report() })))
}
