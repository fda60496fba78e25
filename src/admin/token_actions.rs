//! Actions on existing tokens: rotate, revoke, enable, disable; and revoke all tokens of an account.

use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::error::ApiError;
use super::fields::NUMBER;
use super::request::ApiRequest;
use super::response::{AdminResponse, json_response, token_response};
use crate::tokens::{Edited, Operation, RevokedAccount, TokenView};

/// How long an old secret keeps working unless a request says so: as long as with the command.
const GRACE_SECONDS: u32 = 24 * 3_600;

/// Whether a replica of Redis has the change; absent: there is no replica.
const REPLICATED: HeaderName = HeaderName::from_static("callgate-replicated");

/// `POST /api/tokens/{id}/rotate`
pub(super) async fn rotate(mut request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    let grace = Duration::from_secs(request.body.get("grace_seconds", &NUMBER).unwrap_or(GRACE_SECONDS).into());
    request.body.finish()?;
    let expected = request.expected_version().await?;
    let rotated = request.backend.registry.rotate(request.id, grace, expected, &request.by).await?;
    let secrets = json!({ "token": rotated.secret.expose(), "old_secret_until": rotated.old_until });
    finish(&request, &rotated.edited, secrets).await
}

/// `POST /api/tokens/{id}/revoke`, `/enable` and `/disable`
pub(super) async fn operate(mut request: ApiRequest<'_>, operation: Operation) -> Result<AdminResponse, ApiError> {
    request.body.finish()?;
    let expected = request.expected_version().await?;
    let edited = request.backend.registry.operate(request.id, operation, expected, &request.by).await?;
    finish(&request, &edited, Value::Null).await
}

/// `POST /api/accounts/revoke`
pub(super) async fn revoke_account(mut request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    let account = request.body.require_text("account");
    request.body.finish()?;
    let revoked = request.backend.registry.revoke_account(&account, &request.by).await;
    // Also if only some could be revoked.
    request.backend.refresh().await;
    let RevokedAccount { tokens, lost } = revoked?;
    let ids: Vec<_> = tokens.into_iter().map(|edited| edited.record.id).collect();
    let mut body = json!({ "account": account, "revoked": ids });
    if lost > 0 {
        body["lost"] = lost.into();
    }
    let mut response = json_response(StatusCode::OK, &body);
    mark_replicated(&mut response, request.backend.registry.have_replicated(ids.iter().map(String::as_str)).await);
    Ok(response)
}

/// Answers with a token that was changed.
pub(super) async fn finish(request: &ApiRequest<'_>, edited: &Edited, more: Value) -> Result<AdminResponse, ApiError> {
    request.backend.refresh().await;
    let token = TokenView::new(&edited.record, edited.version, request.by.now);
    let mut response = token_response(StatusCode::OK, &token, more);
    mark_replicated(&mut response, request.backend.registry.have_replicated([&*edited.record.id]).await);
    Ok(response)
}

/// Says whether a failover of Redis would lose the change.
fn mark_replicated(response: &mut AdminResponse, replicated: Option<bool>) {
    if let Some(replicated) = replicated {
        let value = if replicated { "true" } else { "false" };
        response.headers_mut().insert(REPLICATED, HeaderValue::from_static(value));
    }
}
