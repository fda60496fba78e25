//! `GET /api/audit`: who did what to which token, when.

use http::StatusCode;
use serde_json::json;

use super::Call;
use super::answer::{Answer, json as answer_json};
use super::intake;
use super::problem::Problem;
use super::query::whole;
use crate::tokens::{Action, TrailFilter};

/// The newest entry first.
pub(super) async fn list(mut call: Call<'_>) -> Result<Answer, Problem> {
    let query = &mut call.query;
    let action = |text: &str| Action::ALL.into_iter().find(|action| action.as_str() == text);
    let filter = TrailFilter {
        token: query.text("token"),
        account: query.text("account"),
        by: query.text("by"),
        action: query.read("action", "create, import, update, rotate, revoke, enable or disable", action),
        since: query
            .read("since", "a date in UTC such as 2027-01-31T12:00:00Z", |text| Some(intake::date(text)?.time())),
    };
    let before =
        query.read("before", "what the page before said", |text| whole(text).filter(|before| *before < 1 << 53));
    let limit = query.limit();
    std::mem::take(query).done()?;
    let page = call.admin.desk.registry.trail(&filter, before, limit, call.now).await?;
    Ok(answer_json(StatusCode::OK, &json!({ "entries": page.entries, "next": page.before })))
}
