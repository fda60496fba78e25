//! Many tokens registered at once: `/api/import`.

use http::StatusCode;
use serde::Serialize;

use super::answer::{Answer, json};
use super::problem::Problem;
use super::{Admin, AdminBackend, Call};
use crate::tokens::{Defaults, Export, Imported};

/// Tokens that one request may register.
const MOST: usize = 1_000;

/// What became of them. Places are those in the list, from 1.
#[derive(Serialize)]
struct Outcome {
    dry_run: bool,
    imported: Vec<Place>,
    present: Vec<Place>,
    ended: Vec<u64>,
    errors: Vec<Wrong>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Place {
    place: u64,
    id: String,
}

#[derive(Serialize)]
struct Wrong {
    place: u64,
    field: Option<&'static str>,
    message: String,
}

/// `POST /api/import`: what `callgate token import` does.
pub(super) async fn import(mut call: Call<'_>) -> Result<Answer, Problem> {
    let body = &mut call.body;
    let list = body.list("tokens");
    if list.as_ref().is_none_or(|list| !list.as_ref().is_some_and(|list| (1..=MOST).contains(&list.len()))) {
        body.fault("tokens", "must be a list of 1 to 1000 objects");
    }
    let defaults = Defaults {
        account: body.text("account").flatten(),
        permissions: body.texts("permissions").flatten().unwrap_or_default(),
        plan: body.text("plan").flatten(),
    };
    let dry_run = body.truth("dry_run").flatten().unwrap_or(false);
    std::mem::take(body).done()?;
    let export = Export::of(list.flatten().unwrap_or_default());
    let Admin { config, desk: AdminBackend { registry, .. }, .. } = call.admin;
    let imported = registry.import(config, &export, &defaults, dry_run, &call.by, call.now).await;
    call.admin.refresh().await;
    let Imported { tokens, present, ended, refused, warnings, broken, .. } = imported;
    if let Some(error) = broken {
        return Err(error.into());
    }
    let places = |tokens: Vec<(u64, String)>| tokens.into_iter().map(|(place, id)| Place { place, id }).collect();
    let errors = refused.into_iter().map(|one| Wrong { place: one.line, field: one.field, message: one.message });
    let (imported, present, errors) = (places(tokens), places(present), errors.collect());
    Ok(json(StatusCode::OK, &Outcome { dry_run, imported, present, ended, errors, warnings }))
}
