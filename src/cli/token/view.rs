//! Tokens and audit entries as people and programs are shown them.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::table::{short, write_table};
use crate::config::{Config, Limit, Plan};
use crate::tokens::{Date, Entry, Found, Listed, Record, Usage, limit_text};

/// Characters of a name and of permissions in a list; `token show` has all of them.
const NAME_WIDTH: usize = 32;
const PERMISSIONS_WIDTH: usize = 40;

/// A token, and the moment at which it is looked at.
pub(super) struct View<'a> {
    record: &'a Record,
    version: u64,
    usage: Option<Usage>,
    limits: Option<&'a Plan>,
    plan: &'a str,
    now: SystemTime,
}

/// What `token create --json` prints, keys in this order.
#[derive(Serialize)]
struct Created<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    name: &'a str,
    account: &'a str,
    permissions: &'a [String],
    plan: &'a str,
    created_at: Option<Date>,
    expires_at: Option<Date>,
}

impl<'a> View<'a> {
    pub(super) fn new(config: &'a Config, record: &'a Record, version: u64, now: SystemTime) -> Self {
        let plan = record.plan.as_deref().unwrap_or(&config.default_plan.name);
        Self { record, version, usage: None, limits: None, plan, now }
    }

    pub(super) fn of_listed(config: &'a Config, token: &'a Listed, now: SystemTime) -> Self {
        Self { usage: Some(token.usage), ..Self::new(config, &token.record, token.version, now) }
    }

    pub(super) fn of_found(config: &'a Config, found: &'a Found, now: SystemTime) -> Self {
        let (usage, limits) = (Some(found.usage), Some(&*found.plan));
        Self { usage, limits, ..Self::new(config, &found.record, found.version, now) }
    }

    /// What a program is told when a token was made.
    pub(super) fn as_created(&self, secret: Option<&str>) -> String {
        let record = self.record;
        let created = Created {
            id: &record.id,
            token: secret,
            name: &record.name,
            account: &record.account,
            permissions: &record.permissions,
            plan: self.plan,
            created_at: record.created_at,
            expires_at: record.expires_at,
        };
        serde_json::to_string(&created).unwrap_or_default()
    }

    /// All that a program may know.
    pub(super) fn as_json(&self) -> Value {
        let record = self.record;
        let limits = |limits: &[Limit]| -> Map<String, Value> {
            limits.iter().map(|limit| (limit.name.to_string(), limit_text(limit).into())).collect()
        };
        let mut json = json!({
            "id": record.id,
            "name": record.name,
            "account": record.account,
            "permissions": record.permissions,
            "plan": self.plan,
            "limits": limits(&record.limits),
            "concurrent_calls": record.concurrent_calls,
            "created_at": record.created_at,
            "expires_at": record.expires_at,
            "enabled": record.enabled,
            "revoked_at": record.revoked_at,
            "state": record.state(self.now).as_str(),
            "old_secrets_until": self.old_secrets(),
            "version": self.version,
        });
        if let Some(usage) = self.usage {
            json["usage"] = json!({ "last_used_at": usage.last_used, "requests": usage.requests });
        }
        if let Some(plan) = self.limits {
            let (limits, calls) = (limits(&plan.limits), plan.concurrent_calls);
            json["effective"] = json!({ "limits": limits, "concurrent_calls": calls });
        }
        json
    }

    /// One token, a line for each thing that can be said of it.
    pub(super) fn write_sheet(&self, out: &mut dyn Write) -> io::Result<()> {
        let record = self.record;
        let mut rows: Vec<[String; 2]> = Vec::new();
        let mut row = |name: &str, value: String| rows.push([name.to_owned(), value]);
        row("id", record.id.clone());
        row("name", record.name.clone());
        row("account", record.account.clone());
        let state = record.state(self.now).as_str();
        row("state", record.revoked_at.map_or(state.to_owned(), |date| format!("{state} {}", self.moment(date))));
        let permissions = &record.permissions;
        row("permissions", if permissions.is_empty() { "none".to_owned() } else { permissions.join(", ") });
        let default = if record.plan.is_none() { " (the default plan)" } else { "" };
        row("plan", format!("{}{default}", self.plan));
        if let Some(plan) = self.limits {
            let own = |limit: &Limit| if record.limits.contains(limit) { " (its own)" } else { "" };
            let limits = plan.limits.iter().map(|limit| format!("{} {}{}", limit.name, limit_text(limit), own(limit)));
            let limits: Vec<String> = limits.collect();
            row("limits", if limits.is_empty() { "none".to_owned() } else { limits.join(", ") });
            let own = if record.concurrent_calls.is_some() { " (its own)" } else { "" };
            let calls = plan.concurrent_calls.map(|calls| format!("{calls} at one time{own}"));
            row("calls", calls.unwrap_or_else(|| "any number at one time".to_owned()));
        }
        row("created", record.created_at.map_or_else(|| "unknown".to_owned(), |date| self.moment(date)));
        row("expires", record.expires_at.map_or_else(|| "never".to_owned(), |date| self.moment(date)));
        if let Some(usage) = self.usage {
            row("last used", usage.last_used.map_or_else(|| "never".to_owned(), |date| self.moment(date)));
            row("requests", usage.requests.to_string());
        }
        for end in self.old_secrets() {
            row("old secret", format!("until {}", self.moment(end)));
        }
        row("version", self.version.to_string());
        write_table(&rows, out)
    }

    /// The ends of old secrets that work still.
    fn old_secrets(&self) -> Vec<Date> {
        let ends = self.record.hashes.iter().filter_map(|hash| hash.expires_at);
        ends.filter(|end| end.time() > self.now).collect()
    }

    /// A moment, and how far away it is.
    fn moment(&self, date: Date) -> String {
        let text = date.to_string().replace('T', " ").replace('Z', " UTC");
        match date.time().duration_since(self.now) {
            Ok(ahead) => format!("{text} (in {})", roughly(ahead)),
            Err(behind) => format!("{text} ({} ago)", roughly(behind.duration())),
        }
    }

    fn cells(&self) -> [String; 10] {
        let record = self.record;
        let permissions = if record.permissions.is_empty() { "-".to_owned() } else { record.permissions.join(",") };
        let usage = self.usage.unwrap_or_default();
        [
            record.id.clone(),
            short(&record.name, NAME_WIDTH),
            short(&record.account, NAME_WIDTH),
            short(&permissions, PERMISSIONS_WIDTH),
            self.plan.to_owned(),
            record.state(self.now).as_str().to_owned(),
            minute(record.created_at),
            minute(record.expires_at),
            minute(usage.last_used),
            usage.requests.to_string(),
        ]
    }
}

/// A table of tokens.
pub(super) fn write_list(views: &[View<'_>], out: &mut dyn Write) -> io::Result<()> {
    const HEAD: [&str; 10] =
        ["ID", "NAME", "ACCOUNT", "PERMISSIONS", "PLAN", "STATE", "CREATED (UTC)", "EXPIRES", "LAST USED", "REQUESTS"];
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(views.iter().map(View::cells));
    write_table(&rows, out)
}

/// A table of audit entries.
pub(super) fn write_trail(entries: &[Entry], out: &mut dyn Write) -> io::Result<()> {
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
    write_table(&rows, out)
}

/// A date to the minute.
fn minute(date: Option<Date>) -> String {
    date.map_or_else(|| "-".to_owned(), |date| date.to_string().replace('T', " ").chars().take(16).collect())
}

/// A duration as people say it: its largest unit.
fn roughly(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let (size, unit) = units.into_iter().find(|(size, _)| seconds >= *size).unwrap_or((1, "second"));
    let count = seconds / size;
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}
