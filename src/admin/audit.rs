//! `GET /api/audit`: the audit trail, the newest entry first.

use http::StatusCode;
use serde_json::json;

use super::error::ApiError;
use super::fields::{ACTION, AUDIT_CURSOR, DATE, DEFAULT_PAGE, PAGE_SIZE, TEXT};
use super::request::ApiRequest;
use super::response::{AdminResponse, json_response};
use crate::tokens::TrailFilter;

pub(super) async fn list(mut request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    let query = &mut request.query;
    let filter = TrailFilter {
        token: query.get("token", &TEXT),
        account: query.get("account", &TEXT),
        by: query.get("by", &TEXT),
        action: query.get("action", &ACTION),
        since: query.get("since", &DATE),
    };
    let (before, limit) = (query.get("before", &AUDIT_CURSOR), query.get("limit", &PAGE_SIZE).unwrap_or(DEFAULT_PAGE));
    query.finish()?;
    let page = request.backend.registry.trail(&filter, before, limit, request.by.now).await?;
    Ok(json_response(StatusCode::OK, &json!({ "entries": page.entries, "next": page.before })))
}
