//! Tokens and audit entries as people and programs see them.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::table::{short, table};
use crate::config::Limit;
use crate::tokens::{Date, Entry, Record, TokenView, limit_text};

/// Characters of a name and of permissions in a list; `token show` has all of them.
const NAME_WIDTH: usize = 32;
const PERMISSIONS_WIDTH: usize = 40;

/// What `token create --json` prints, keys in this order.
#[derive(Serialize)]
pub(super) struct CreatedToken<'a> {
    pub(super) id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<&'a str>,
    pub(super) name: &'a str,
    pub(super) account: &'a str,
    pub(super) permissions: &'a [String],
    pub(super) plan: &'a str,
    pub(super) created_at: Option<Date>,
    pub(super) expires_at: Option<Date>,
}

impl<'a> CreatedToken<'a> {
    pub(super) fn new(record: &'a Record, token: Option<&'a str>, default_plan: &'a str) -> Self {
        let Record { id, name, account, permissions, plan, created_at, expires_at, .. } = record;
        let (plan, created_at, expires_at) = (plan.as_deref().unwrap_or(default_plan), *created_at, *expires_at);
        Self { id, token, name, account, permissions, plan, created_at, expires_at }
    }
}

/// A token in JSON. Its plan always has a name.
pub(super) fn token_json(token: &TokenView<'_>, default_plan: &str) -> Value {
    let mut json = json!(token);
    json["plan"] = token.plan.unwrap_or(default_plan).into();
    json
}

/// All about one token, one line for each property.
pub(super) fn token_sheet(token: &TokenView<'_>, default_plan: &str, now: SystemTime) -> String {
    let moment = |date: Date| moment(date, now);
    let or = |date: Option<Date>, none: &str| date.map_or(none.to_owned(), moment);
    let joined = |list: Vec<String>| if list.is_empty() { "none".to_owned() } else { list.join(", ") };
    let mut rows: Vec<[String; 2]> = Vec::new();
    let mut row = |name: &str, value: String| rows.push([name.to_owned(), value]);
    row("id", token.id.to_owned());
    row("name", token.name.to_owned());
    row("account", token.account.to_owned());
    row("state", token.revoked_at.map_or(token.state.to_owned(), |date| format!("{} {}", token.state, moment(date))));
    row("permissions", joined(token.permissions.to_vec()));
    row("plan", token.plan.map_or_else(|| format!("{default_plan} (the default plan)"), str::to_owned));
    if let Some(effective) = &token.effective {
        let own = |limit: &Limit| if token.limits.contains(limit) { " (its own)" } else { "" };
        let limit = |limit: &Limit| format!("{} {}{}", limit.name, limit_text(limit), own(limit));
        row("limits", joined(effective.limits.iter().map(limit).collect()));
        let own = if token.concurrent_calls.is_some() { " (its own)" } else { "" };
        let calls = effective.concurrent_calls.map(|calls| format!("{calls} at one time{own}"));
        row("calls", calls.unwrap_or_else(|| "any number at one time".to_owned()));
        let own = if token.in_flight.is_some() { " (its own)" } else { "" };
        let requests = effective.in_flight.map(|requests| format!("{requests} at one time on each instance{own}"));
        row("in flight", requests.unwrap_or_else(|| "any number at one time".to_owned()));
    }
    row("created", or(token.created_at, "unknown"));
    row("expires", or(token.expires_at, "never"));
    if let Some(usage) = token.usage {
        row("last used", or(usage.last_used_at, "never"));
        row("requests", usage.requests.to_string());
    }
    for end in &token.old_secrets_until {
        row("old secret", format!("until {}", moment(*end)));
    }
    row("version", token.version.to_string());
    table(&rows)
}

pub(super) fn token_table(tokens: &[TokenView<'_>], default_plan: &str) -> String {
    let mut rows = vec![
        ["ID", "NAME", "ACCOUNT", "PERMISSIONS", "PLAN", "STATE", "CREATED (UTC)", "EXPIRES", "LAST USED", "REQUESTS"]
            .map(str::to_owned),
    ];
    rows.extend(tokens.iter().map(|token| {
        let permissions = if token.permissions.is_empty() { "-".to_owned() } else { token.permissions.join(",") };
        let usage = token.usage.unwrap_or_default();
        [
            token.id.to_owned(),
            short(token.name, NAME_WIDTH),
            short(token.account, NAME_WIDTH),
            short(&permissions, PERMISSIONS_WIDTH),
            token.plan.unwrap_or(default_plan).to_owned(),
            token.state.to_owned(),
            minute(token.created_at),
            minute(token.expires_at),
            minute(usage.last_used_at),
            usage.requests.to_string(),
        ]
    }));
    table(&rows)
}

pub(super) fn audit_table(entries: &[Entry]) -> String {
    let mut rows = vec![["WHEN (UTC)", "WHO", "DID", "TOKEN", "ACCOUNT", "WHAT"].map(str::to_owned)];
    rows.extend(entries.iter().map(|entry| {
        let tokens = match &entry.tokens[..] {
            [token] => token.clone(),
            tokens => format!("{} tokens", tokens.len()),
        };
        let changes = entry.changes.iter().map(|(field, pair)| format!("{field}: {} → {}", pair[0], pair[1]));
        [
            entry.at.to_string().replace('T', " ").replace('Z', ""),
            short(&entry.by, NAME_WIDTH),
            entry.action.as_str().to_owned(),
            tokens,
            short(entry.account.as_deref().unwrap_or("-"), NAME_WIDTH),
            short(&changes.collect::<Vec<_>>().join(", "), 100),
        ]
    }));
    table(&rows)
}

/// A date to the minute.
fn minute(date: Option<Date>) -> String {
    date.map_or_else(|| "-".to_owned(), |date| date.to_string().replace('T', " ").chars().take(16).collect())
}

/// A moment, and how far away it is.
fn moment(date: Date, now: SystemTime) -> String {
    let text = date.to_string().replace('T', " ").replace('Z', " UTC");
    match date.time().duration_since(now) {
        Ok(ahead) => format!("{text} (in {})", roughly(ahead)),
        Err(behind) => format!("{text} ({} ago)", roughly(behind.duration())),
    }
}

/// A duration as people say it: its largest unit.
fn roughly(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let (size, unit) = units.into_iter().find(|(size, _)| seconds >= *size).unwrap_or((1, "second"));
    let count = seconds / size;
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}
