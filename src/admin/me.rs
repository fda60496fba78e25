//! `GET /api/me`: the sender of the request, so that a page knows what to offer.

use http::StatusCode;
use serde_json::json;

use super::error::ApiError;
use super::request::ApiRequest;
use super::response::{AdminResponse, json_response};

pub(super) async fn show(mut request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    request.query.finish()?;
    let caller = &request.caller;
    Ok(json_response(StatusCode::OK, &json!({ "name": caller.identity.name(), "role": caller.role.as_str() })))
}
