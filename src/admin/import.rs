//! `POST /api/import`: registers many tokens at once, as `callgate token import` does.

use http::StatusCode;
use serde_json::{Value, json};

use super::error::ApiError;
use super::fields::{BOOL, LIST, TEXT, TEXTS};
use super::request::ApiRequest;
use super::response::{AdminResponse, json_response};
use crate::tokens::{Defaults, Export, Imported, Refused};

/// Tokens that one request may register.
const MAX_TOKENS: usize = 1_000;

pub(super) async fn import(mut request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    let body = &mut request.body;
    let list = body.get("tokens", &LIST).unwrap_or_default();
    if !(1..=MAX_TOKENS).contains(&list.len()) {
        body.error("tokens", "must be a list of 1 to 1000 objects");
    }
    let defaults = Defaults {
        account: body.get("account", &TEXT),
        permissions: body.get("permissions", &TEXTS).unwrap_or_default(),
        plan: body.get("plan", &TEXT),
    };
    let dry_run = body.get("dry_run", &BOOL).unwrap_or(false);
    body.finish()?;
    let (backend, export) = (request.backend, Export::of(list));
    let imported = backend.registry.import(&backend.config, &export, &defaults, dry_run, &request.by, |_, _| {}).await;
    backend.refresh().await;
    let Imported { tokens, present, ended, refused, warnings, broken, .. } = imported;
    if let Some(error) = broken {
        return Err(error.into());
    }
    // A place is a position in the list, from 1.
    let places = |tokens: Vec<(u64, String)>| -> Vec<Value> {
        tokens.into_iter().map(|(place, id)| json!({ "place": place, "id": id })).collect()
    };
    let error = |row: Refused| json!({ "place": row.line, "field": row.field, "message": row.message });
    let errors: Vec<Value> = refused.into_iter().map(error).collect();
    let (imported, present) = (places(tokens), places(present));
    let outcome = json!({
        "dry_run": dry_run, "imported": imported, "present": present, "ended": ended, "errors": errors, "warnings": warnings,
    });
    Ok(json_response(StatusCode::OK, &outcome))
}
