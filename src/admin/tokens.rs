//! `/api/tokens`: list, create, show and change tokens.

use http::{HeaderName, StatusCode, header};
use serde_json::json;

use super::backend::AdminBackend;
use super::error::ApiError;
use super::fields::{DATE, DEFAULT_PAGE, Fields, LIMITS, NUMBER, PAGE_SIZE, STATE, TEXT, TEXTS};
use super::if_match::IfMatch;
use super::request::ApiRequest;
use super::response::{AdminResponse, json_response, set_header, token_response};
use super::token_actions::finish;
use crate::config::Secret;
use crate::tokens::{Change, Draft, Filter, Origin, TokenHash, TokenView, strange_permissions};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Bytes of an idempotency key.
const MAX_KEY_LEN: usize = 255;

/// `GET /api/tokens`
pub(super) async fn list(mut request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    let query = &mut request.query;
    let filter = Filter {
        account: query.get("account", &TEXT),
        name: query.get("name", &TEXT),
        plan: query.get("plan", &TEXT),
        state: query.get("state", &STATE),
        permission: query.get("permission", &TEXT),
    };
    let (after, limit) = (query.get("after", &TEXT), query.get("limit", &PAGE_SIZE).unwrap_or(DEFAULT_PAGE));
    query.finish()?;
    let now = request.by.now;
    let page = request.backend.registry.list(&filter, after.as_deref(), limit, now).await?;
    let tokens: Vec<_> = page.tokens.iter().map(|listed| TokenView::of_listed(listed, now)).collect();
    Ok(json_response(StatusCode::OK, &json!({ "tokens": tokens, "next": page.next })))
}

/// `POST /api/tokens`: makes a token, or registers one by its hash.
pub(super) async fn create(mut request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    let key = idempotency_key(&request)?;
    let body = &mut request.body;
    let draft = Draft {
        name: body.require_text("name"),
        account: body.require_text("account"),
        permissions: body.get("permissions", &TEXTS).unwrap_or_default(),
        plan: body.get("plan", &TEXT),
        limits: body.get("limits", &LIMITS).unwrap_or_default(),
        concurrent_calls: body.get("concurrent_calls", &NUMBER),
        in_flight: body.get("in_flight", &NUMBER),
        expires_at: body.get("expires_at", &DATE),
    };
    let origin = origin(body);
    body.finish()?;
    let AdminBackend { config, registry, .. } = request.backend;
    let issued = registry.issue(draft, origin, key.as_deref(), &request.by).await?;
    request.backend.refresh().await;
    // A repeated request gets the existing token without its secret, which is no longer known.
    let status = if issued.edited.changed { StatusCode::CREATED } else { StatusCode::OK };
    let record = &issued.edited.record;
    let more = json!({
        "token": issued.secret.as_ref().map(Secret::expose),
        "warnings": strange_permissions(config, &record.permissions),
    });
    let token = TokenView::new(record, issued.edited.version, request.by.now);
    let mut response = token_response(status, &token, more);
    set_header(&mut response, header::LOCATION, format!("/api/tokens/{}", record.id));
    Ok(response)
}

/// `GET /api/tokens/{id}`
pub(super) async fn show(request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    let found = request.backend.registry.find(request.id).await?;
    Ok(token_response(StatusCode::OK, &TokenView::of_found(&found, request.by.now), json!({})))
}

/// `PATCH /api/tokens/{id}`: changes the fields that are given, if the token still has the version of `If-Match`.
pub(super) async fn change(mut request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    if IfMatch::parse(request.headers)? == IfMatch::Absent {
        return Err(ApiError::Unconditional);
    }
    let body = &mut request.body;
    let name = body.get_nullable("name", &TEXT);
    if name == Some(None) {
        body.error("name", "must be a text");
    }
    let change = Change {
        name: name.flatten(),
        permissions: body.get_nullable("permissions", &TEXTS).map(Option::unwrap_or_default),
        plan: body.get_nullable("plan", &TEXT),
        limits: body.get_nullable("limits", &LIMITS).map(Option::unwrap_or_default),
        concurrent_calls: body.get_nullable("concurrent_calls", &NUMBER),
        in_flight: body.get_nullable("in_flight", &NUMBER),
        expires_at: body.get_nullable("expires_at", &DATE),
    };
    for fixed in ["id", "account"] {
        if body.take(fixed).is_some() {
            body.error(fixed, "can't be changed: make another token");
        }
    }
    body.finish()?;
    let expected = request.expected_version().await?;
    let AdminBackend { config, registry, .. } = request.backend;
    let edited = registry.update(request.id, change, expected, &request.by).await?;
    let warnings = json!({ "warnings": strange_permissions(config, &edited.record.permissions) });
    finish(&request, &edited, warnings).await
}

/// The secret of a new token is made, unless the SHA-256 of an existing one is given.
fn origin(body: &mut Fields) -> Origin {
    let (sha256, id) = (body.get("sha256", &TEXT), body.get("id", &TEXT));
    let Some(hex) = sha256 else {
        if id.is_some() {
            body.error("id", "goes with sha256 only");
        }
        return Origin::New;
    };
    match TokenHash::from_hex(&hex) {
        Some(hash) => Origin::Registered { id, hash },
        None => {
            // The value is not repeated: it could be the token.
            body.error("sha256", "must be 64 hexadecimal digits (SHA-256 of the token), not the token itself");
            Origin::New
        }
    }
}

fn idempotency_key(request: &ApiRequest<'_>) -> Result<Option<String>, ApiError> {
    let mut lines = request.headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    let key = line.to_str().ok().filter(|key| (1..=MAX_KEY_LEN).contains(&key.len()) && lines.next().is_none());
    let malformed =
        || ApiError::Malformed(format!("Idempotency-Key must be 1 to {MAX_KEY_LEN} printable ASCII characters."));
    key.map(|key| Some(key.to_owned())).ok_or_else(malformed)
}
