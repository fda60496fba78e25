//! The audit trail: who did what to which token, when. It holds no secret and no hash.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::date::Date;
use super::limit_text::limit_text;
use super::record::Record;
use crate::accounts::{host_name, user_name};

/// Entries that a store keeps; older ones are forgotten.
pub const TRAIL_LENGTH: usize = 10_000;
/// Characters of an actor.
const LONGEST_ACTOR: usize = 200;

/// The person or program that manages tokens: one printable line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor(String);

impl Actor {
    /// A person at a command line: `cli:USER@HOST`.
    pub fn person(user: &str, host: &str) -> Self {
        Self::of(&format!("cli:{user}@{host}"))
    }

    /// The person behind sudo, or the account that this process runs as, on this machine.
    pub(crate) fn of_this_process() -> Self {
        let uid = rustix::process::getuid().as_raw();
        let behind_sudo = std::env::var("SUDO_USER").ok().filter(|user| uid == 0 && !user.is_empty());
        let user = behind_sudo.or_else(|| user_name(uid)).unwrap_or_else(|| format!("uid{uid}"));
        Self::person(&user, &host_name())
    }

    /// A holder of an admin token, by the token's id: `admin:ID`.
    pub(crate) fn admin(id: &str) -> Self {
        Self::of(&format!("admin:{id}"))
    }

    /// Somebody on this machine, whom the admin listener asks for no credential: `admin`.
    pub(crate) fn loopback() -> Self {
        Self::of("admin")
    }

    /// A user of this machine, by a Unix socket: `local:USER`.
    pub(crate) fn local_user(uid: u32) -> Self {
        Self::of(&format!("local:{}", user_name(uid).unwrap_or_else(|| format!("uid{uid}"))))
    }

    /// As the trail has it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    fn of(text: &str) -> Self {
        let printable = text.chars().map(|c| if c.is_control() { '?' } else { c });
        Self(printable.take(LONGEST_ACTOR).collect())
    }
}

/// What an audit entry says of an action besides its tokens.
#[derive(Debug, Clone)]
pub struct ActionContext {
    /// The person or program that acts.
    pub actor: Actor,
    /// When.
    pub now: SystemTime,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// A token was made, or registered by its hash.
    Create,
    /// Tokens that were made elsewhere were registered.
    Import,
    /// What a token is called, or what it may do, was changed.
    Update,
    /// A token got a new secret.
    Rotate,
    /// A token was revoked, for good.
    Revoke,
    /// A token was switched on.
    Enable,
    /// A token was switched off.
    Disable,
    /// The log of a token's limits was cleared.
    Reset,
    /// An open call of a token was closed.
    #[serde(rename = "end_call")]
    EndCall,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Create,
        Self::Import,
        Self::Update,
        Self::Rotate,
        Self::Revoke,
        Self::Enable,
        Self::Disable,
        Self::Reset,
        Self::EndCall,
    ];

    /// The action as a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Import => "import",
            Self::Update => "update",
            Self::Rotate => "rotate",
            Self::Revoke => "revoke",
            Self::Enable => "enable",
            Self::Disable => "disable",
            Self::Reset => "reset",
            Self::EndCall => "end_call",
        }
    }
}

/// One entry of the trail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: Date,
    /// The actor, as [`Actor`] writes it.
    pub by: String,
    /// What was done.
    pub action: Action,
    /// To which tokens: one, or the many of an import.
    pub tokens: Vec<String>,
    /// The account that owns them, if they are one account's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// What was changed: for each field what it was and what it is.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub changes: Map<String, Value>,
}

impl Entry {
    /// The entry of records that are registered together.
    pub(super) fn of_import<'a>(records: impl Iterator<Item = &'a Record> + Clone, by: &ActionContext) -> Self {
        let mut accounts = records.clone().map(|record| &record.account);
        let first = accounts.next().cloned();
        let account = first.filter(|first| accounts.all(|account| account == first));
        Self::new(Action::Import, by, records.map(|record| record.id.clone()).collect(), account)
    }

    /// A call of a record's token was closed for this reason.
    pub(super) fn of_call_end(record: &Record, call: &str, reason: &str, by: &ActionContext) -> Self {
        let mut entry = Self::new(Action::EndCall, by, vec![record.id.clone()], Some(record.account.clone()));
        entry.changes =
            Map::from_iter([("call".to_owned(), json!([call, null])), ("reason".to_owned(), json!([null, reason]))]);
        entry
    }

    /// What turned one record (`None`: there was none) into another.
    pub(super) fn of(action: Action, by: &ActionContext, before: Option<&Record>, after: &Record) -> Self {
        let mut entry = Self::new(action, by, vec![after.id.clone()], Some(after.account.clone()));
        if let Some(before) = before {
            let mut old = facts(before);
            let pairs = facts(after).into_iter().map(|(field, new)| {
                let old = old.remove(&field).unwrap_or_default();
                (field, old, new)
            });
            let changed = pairs.filter(|(_, old, new)| old != new);
            entry.changes = changed.map(|(field, old, new)| (field, json!([old, new]))).collect();
        }
        entry
    }

    fn new(action: Action, by: &ActionContext, tokens: Vec<String>, account: Option<String>) -> Self {
        let (at, by) = (Date::new(by.now), by.actor.0.clone());
        Self { at, by, action, tokens, account, changes: Map::new() }
    }

    /// Writes the entry to the log.
    pub(super) fn log(&self) {
        let (by, action, account) = (&self.by, self.action.as_str(), self.account.as_deref());
        let changed: Vec<&str> = self.changes.keys().map(String::as_str).collect();
        match &self.tokens[..] {
            [token] => tracing::info!(by, action, token, account, changed = changed.join(","), "token managed"),
            tokens => tracing::info!(by, action, tokens = tokens.len(), account, "tokens managed"),
        }
    }
}

/// What people may know of a record, field by field.
fn facts(record: &Record) -> Map<String, Value> {
    let limits: Map<String, Value> =
        record.limits.iter().map(|limit| (limit.name.to_string(), limit_text(limit).into())).collect();
    let old_secrets: Vec<_> = record.hashes.iter().skip(1).map(|hash| hash.expires_at).collect();
    let facts = [
        ("name", json!(record.name)),
        ("account", json!(record.account)),
        ("permissions", json!(record.permissions)),
        ("plan", json!(record.plan)),
        ("limits", if limits.is_empty() { Value::Null } else { limits.into() }),
        ("concurrent_calls", json!(record.concurrent_calls)),
        ("in_flight", json!(record.in_flight)),
        ("expires_at", json!(record.expires_at)),
        ("enabled", json!(record.enabled)),
        ("revoked_at", json!(record.revoked_at)),
        ("old_secrets_until", json!(old_secrets)),
    ];
    facts.into_iter().map(|(field, value)| (field.to_owned(), value)).collect()
}

/// Which entries are wanted.
#[derive(Debug, Clone, Default)]
pub struct TrailFilter {
    /// Of this token.
    pub token: Option<String>,
    /// Of this account.
    pub account: Option<String>,
    /// By whom: all of it, or a part.
    pub by: Option<String>,
    /// Of this kind.
    pub action: Option<Action>,
    /// From this moment on.
    pub since: Option<SystemTime>,
}

impl TrailFilter {
    pub(super) fn matches(&self, entry: &Entry) -> bool {
        self.token.as_ref().is_none_or(|token| entry.tokens.contains(token))
            && self.account.as_ref().is_none_or(|account| entry.account.as_ref() == Some(account))
            && self.by.as_ref().is_none_or(|by| entry.by.contains(by.as_str()))
            && self.action.is_none_or(|action| action == entry.action)
            && self.since.is_none_or(|since| entry.at.time() >= Date::new(since).time())
    }
}

/// A part of the trail, the newest entry first.
#[derive(Debug, Default)]
pub struct TrailPage {
    /// The entries.
    pub entries: Vec<Entry>,
    /// What to ask for to get those before them; `None` if there are none.
    pub before: Option<u64>,
}
