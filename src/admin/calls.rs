//! `/api/calls`: the open calls, and the end of one.

use http::StatusCode;
use serde_json::json;

use super::error::ApiError;
use super::fields::{CALL_CURSOR, DEFAULT_PAGE, FLAG, PAGE_SIZE, REASON, TEXT};
use super::request::ApiRequest;
use super::response::{AdminResponse, json_response};
use crate::instances::{CallPage, EndOutcome};
use crate::live_calls::CallFilter;

/// What both sides of a call are told, unless a request gives a reason.
const DEFAULT_REASON: &str = "closed by the operator";

/// `GET /api/calls`
pub(super) async fn list(mut request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    let query = &mut request.query;
    let filter = CallFilter {
        token: query.get("token", &TEXT),
        account: query.get("account", &TEXT),
        route: query.get("route", &TEXT),
        upstream: query.get("upstream", &TEXT),
    };
    let all = query.get("all", &FLAG).unwrap_or(false);
    let (after, limit) = (query.get("after", &CALL_CURSOR), query.get("limit", &PAGE_SIZE).unwrap_or(DEFAULT_PAGE));
    query.finish()?;
    let instances = &request.backend.instances;
    // One more shows whether there is another page.
    let CallPage { mut calls, silent } = match all {
        true => instances.all_calls(&filter, after, limit + 1).await,
        false => CallPage { calls: instances.own_calls(&filter, after, limit + 1), silent: Vec::new() },
    };
    let has_more = calls.len() > limit;
    calls.truncate(limit);
    let next = calls.last().filter(|_| has_more).map(|last| last.id.clone());
    Ok(json_response(StatusCode::OK, &json!({ "calls": calls, "next": next, "silent_instances": silent })))
}

/// `DELETE /api/calls/{id}`
pub(super) async fn end(mut request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    let reason = request.query.get("reason", &REASON).unwrap_or_else(|| DEFAULT_REASON.to_owned());
    request.query.finish()?;
    let unknown = || ApiError::NotFound("No call that is open has this id.".to_owned());
    let id = request.id.parse().map_err(|()| unknown())?;
    let token = match request.backend.instances.end_call(id, &reason).await? {
        EndOutcome::Ended { token } => token,
        EndOutcome::Unknown => return Err(unknown()),
        EndOutcome::Silent(silent) => {
            let silent = silent.join(", ");
            // One of them may yet close it.
            let by = request.by.actor.as_str();
            tracing::warn!(
                call = request.id,
                reason,
                by,
                silent,
                "a call may have been closed by an instance that did not answer"
            );
            let message =
                format!("No instance that answered has this call; these did not answer: {silent}. Try again.");
            return Err(ApiError::Unavailable(message));
        }
    };
    tracing::info!(call = request.id, reason, by = request.by.actor.as_str(), token, "a call was closed");
    // A call on a public route belongs to no token, and the trail is about tokens.
    if let Some(token) = token {
        let noted = request.backend.registry.note_call_end(&token, request.id, &reason, &request.by).await;
        if let Err(error) = noted {
            tracing::warn!(token, call = request.id, %error, "the audit trail lacks the end of a call");
        }
    }
    Ok(json_response(StatusCode::OK, &json!({ "id": request.id, "ended": true })))
}
