//! `/api/limits/{id}`: how far a token's limits are used up, and its log cleared.

use http::StatusCode;
use serde_json::json;

use super::error::ApiError;
use super::request::ApiRequest;
use super::response::{AdminResponse, json_response};

/// `GET /api/limits/{id}`
pub(super) async fn show(mut request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    request.query.finish()?;
    Ok(json_response(StatusCode::OK, &request.backend.limits.peek(request.id).await?))
}

/// `DELETE /api/limits/{id}`
pub(super) async fn reset(mut request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    request.query.finish()?;
    request.backend.limits.reset(request.id, &request.by).await?;
    Ok(json_response(StatusCode::OK, &json!({ "id": request.id, "reset": true })))
}
