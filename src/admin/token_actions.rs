//! What is done to tokens that are there: rotate, revoke, enable, disable; and revoke all of an account.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use super::Call;
use super::answer::{Answer, json as answer_json};
use super::problem::Problem;
use super::tokens::{Deed, expected_version};
use crate::tokens::Edited;

/// How long an old secret lives on unless a request says so: as long as with the command.
const GRACE_SECONDS: u32 = 24 * 3_600;

/// `POST /api/tokens/{id}/rotate`: a new secret; the old one works for `grace_seconds` more.
pub(super) async fn rotate(mut call: Call<'_>) -> Result<Answer, Problem> {
    let grace = call.body.number("grace_seconds").flatten().unwrap_or(GRACE_SECONDS);
    std::mem::take(&mut call.body).done()?;
    let expected = expected_version(&call).await?;
    let (config, grace) = (&call.admin.config, Duration::from_secs(grace.into()));
    let rotated = call.admin.desk.registry.rotate(config, call.id, grace, expected, &call.by, call.now).await?;
    call.admin.refresh().await;
    let mut deed = Deed::new(&call, &rotated.edited.record, rotated.edited.version);
    deed.secret = Some(Some(rotated.secret.expose()));
    deed.old_secret_until = Some(rotated.old_until);
    Ok(deed.into_answer(StatusCode::OK))
}

/// `POST /api/tokens/{id}/revoke`: for good.
pub(super) async fn revoke(mut call: Call<'_>) -> Result<Answer, Problem> {
    std::mem::take(&mut call.body).done()?;
    let expected = expected_version(&call).await?;
    let edited = call.admin.desk.registry.revoke(call.id, expected, &call.by, call.now).await?;
    done(&call, &edited).await
}

/// `POST /api/tokens/{id}/enable` and `/disable`.
pub(super) async fn switch(mut call: Call<'_>, on: bool) -> Result<Answer, Problem> {
    std::mem::take(&mut call.body).done()?;
    let expected = expected_version(&call).await?;
    let edited = call.admin.desk.registry.switch(call.id, on, expected, &call.by, call.now).await?;
    done(&call, &edited).await
}

/// `POST /api/accounts/revoke`: all tokens of an account.
pub(super) async fn revoke_account(mut call: Call<'_>) -> Result<Answer, Problem> {
    let account = call.body.needed_text("account");
    std::mem::take(&mut call.body).done()?;
    let revoked = call.admin.desk.registry.revoke_account(&account, &call.by, call.now).await;
    // Also if only some could be revoked.
    call.admin.refresh().await;
    let ids: Vec<_> = revoked?.into_iter().map(|edited| edited.record.id).collect();
    Ok(answer_json(StatusCode::OK, &json!({ "account": account, "revoked": ids })))
}

async fn done(call: &Call<'_>, edited: &Edited) -> Result<Answer, Problem> {
    call.admin.refresh().await;
    Ok(Deed::new(call, &edited.record, edited.version).into_answer(StatusCode::OK))
}
