//! `GET /api/upstreams`: each upstream with its endpoints, as this process sees them.

use http::StatusCode;
use serde_json::json;

use super::error::ApiError;
use super::request::ApiRequest;
use super::response::{AdminResponse, json_response};

pub(super) async fn list(mut request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    request.query.finish()?;
    Ok(json_response(StatusCode::OK, &json!({ "upstreams": request.backend.upstreams.report() })))
}
