//! One row of an export as the token that it asks for.

use serde_json::{Map, Value};

use super::table::HASHES;
use crate::tokens::date::Date;
use crate::tokens::draft::Draft;
use crate::tokens::error::Fault;
use crate::tokens::token::{self, TokenHash};

/// The columns that mean something, and those of Laravel Sanctum's table that may as well be there.
pub const COLUMNS: [&str; 19] = [
    "sha256",
    "hash",
    "token",
    "callgate_id",
    "name",
    "account",
    "tokenable_type",
    "tokenable_id",
    "permissions",
    "abilities",
    "plan",
    "limits",
    "concurrent_calls",
    "enabled",
    "expires_at",
    "created_at",
    "id",
    "last_used_at",
    "updated_at",
];
/// The name of a token whose export tells none.
const NAMELESS: &str = "imported";

/// What holds for tokens of which the export doesn't say.
#[derive(Debug, Clone, Default)]
pub struct Defaults {
    /// The account that owns them.
    pub account: Option<String>,
    /// What they may do.
    pub permissions: Vec<String>,
    /// Their plan.
    pub plan: Option<String>,
}

/// A token that a row asks for.
#[derive(Debug)]
pub(in crate::tokens) struct ImportRow {
    pub(in crate::tokens) draft: Draft,
    pub(in crate::tokens) hash: TokenHash,
    pub(in crate::tokens) id: String,
    pub(in crate::tokens) created_at: Option<Date>,
    pub(in crate::tokens) enabled: bool,
}

/// Reads values and collects what is wrong with them. No message repeats a value: a token may stand where its hash belongs.
struct Reader<'a> {
    fields: &'a Map<String, Value>,
    faults: Vec<Fault>,
}

impl ImportRow {
    /// # Errors
    /// Everything that is wrong with the row by itself; what the configuration has to say is for the draft.
    pub(in crate::tokens) fn read(fields: &Map<String, Value>, defaults: &Defaults) -> Result<Self, Vec<Fault>> {
        let mut reader = Reader { fields, faults: Vec::new() };
        let hash = reader.hash();
        let id = reader.text("callgate_id");
        if id.as_deref().is_some_and(|id| !token::can_be_own(id)) {
            reader.fault(
                "callgate_id",
                "callgate_id must be 12 letters and digits, as those of Callgate's own tokens are",
            );
        }
        let account = reader.account().or_else(|| defaults.account.clone());
        if account.is_none() {
            reader.fault("account", "no column says whose it is (account, or tokenable_id): say so with --account");
        }
        let draft = Draft {
            name: reader.text("name").unwrap_or_else(|| NAMELESS.to_owned()),
            account: account.unwrap_or_default(),
            permissions: reader.permissions().unwrap_or_else(|| defaults.permissions.clone()),
            plan: reader.text("plan").or_else(|| defaults.plan.clone()),
            limits: reader.limits(),
            concurrent_calls: reader.number("concurrent_calls"),
            expires_at: reader.date("expires_at").map(Date::time),
        };
        let (created_at, enabled) = (reader.date("created_at"), reader.truth("enabled").unwrap_or(true));
        match hash {
            Some(hash) if reader.faults.is_empty() => {
                Ok(Self { draft, hash, id: id.unwrap_or_else(|| hash.derived_id()), created_at, enabled })
            }
            _ => Err(reader.faults),
        }
    }
}

impl Reader<'_> {
    fn fault(&mut self, field: &'static str, message: &str) {
        self.faults.push(Fault { field, message: message.to_owned() });
    }

    /// What the column holds, unless that is nothing.
    fn value(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null() && value.as_str() != Some(""))
    }

    fn hash(&mut self) -> Option<TokenHash> {
        let value = HASHES.iter().find_map(|name| self.value(name));
        let hash = value.and_then(Value::as_str).and_then(|text| TokenHash::from_hex(text.trim()));
        if hash.is_none() {
            self.fault(
                "sha256",
                "sha256 must be 64 hexadecimal digits: the SHA-256 of the token, not the token itself",
            );
        }
        hash
    }

    fn text(&mut self, name: &'static str) -> Option<String> {
        let text = match self.value(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        if text.is_none() {
            self.fault(name, &format!("{name} must be a text"));
        }
        text
    }

    /// Sanctum's tokens belong to a model: `App\Models\User` 5 is `user-5`.
    fn account(&mut self) -> Option<String> {
        if let Some(account) = self.text("account") {
            return Some(account);
        }
        let id = self.text("tokenable_id")?;
        let kind = self.text("tokenable_type")?;
        let kind = kind.rsplit(['\\', '/', '.']).next().unwrap_or_default().to_lowercase();
        Some(format!("{kind}-{id}"))
    }

    fn permissions(&mut self) -> Option<Vec<String>> {
        let (name, value) = ["permissions", "abilities"].iter().find_map(|name| Some((*name, self.value(name)?)))?;
        let list = match value {
            Value::String(text) if text.trim_start().starts_with('[') => serde_json::from_str(text).ok(),
            Value::String(text) => Some(words(text).map(str::to_owned).collect()),
            list => serde_json::from_value(list.clone()).ok(),
        };
        if list.is_none() {
            self.fault("permissions", &format!("{name} must be a list of texts such as [\"calls:read\"]"));
        }
        list
    }

    fn limits(&mut self) -> Vec<(String, String)> {
        let read = match self.value("limits") {
            None => return Vec::new(),
            Some(Value::Object(limits)) => {
                limits.iter().map(|(name, limit)| Some((name.clone(), limit.as_str()?.to_owned()))).collect()
            }
            Some(Value::String(text)) => words(text)
                .map(|word| word.split_once('=').map(|(name, limit)| (name.to_owned(), limit.to_owned())))
                .collect(),
            Some(_) => None,
        };
        read.unwrap_or_else(|| {
            self.fault("limits", "limits must be such as minute=120/1m, several with blanks between them");
            Vec::new()
        })
    }

    fn number(&mut self, name: &'static str) -> Option<u32> {
        let number = match self.value(name)? {
            Value::String(text) => text.trim().parse().ok(),
            value => value.as_u64().and_then(|number| u32::try_from(number).ok()),
        };
        if number.is_none() {
            self.fault(name, &format!("{name} must be a whole number"));
        }
        number
    }

    fn truth(&mut self, name: &'static str) -> Option<bool> {
        let truth = match self.value(name)? {
            Value::Bool(truth) => Some(*truth),
            Value::String(text) if ["1", "true", "yes", "t"].contains(&&*text.to_lowercase()) => Some(true),
            Value::String(text) if ["0", "false", "no", "f"].contains(&&*text.to_lowercase()) => Some(false),
            Value::Number(number) if number.as_u64() == Some(1) => Some(true),
            Value::Number(number) if number.as_u64() == Some(0) => Some(false),
            _ => None,
        };
        if truth.is_none() {
            self.fault(name, &format!("{name} must be true or false"));
        }
        truth
    }

    /// RFC 3339, or as databases write it: `2027-01-31 12:00:00`, which is taken for UTC.
    fn date(&mut self, name: &'static str) -> Option<Date> {
        let text = self.value(name)?.as_str().map(str::trim);
        let of_database = |text: &str| Date::parse(&format!("{}Z", text.replacen(' ', "T", 1)));
        let date = text.and_then(|text| Date::parse(text).or_else(|| of_database(text)));
        if date.is_none() {
            let message = format!("{name} must be a date in UTC such as 2027-01-31T12:00:00Z or 2027-01-31 12:00:00");
            self.fault(name, &message);
        }
        date
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', ',', ';']).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn read(value: Value) -> Result<ImportRow, Vec<Fault>> {
        let Value::Object(fields) = value else { unreachable!() };
        ImportRow::read(&fields, &Defaults::default())
    }

    #[test]
    fn a_row_of_sanctum_is_a_token() {
        let wanted = read(json!({
            "id": "17", "tokenable_type": "App\\Models\\User", "tokenable_id": "5", "name": "phone", "token": HASH,
            "abilities": "[\"calls:read\",\"calls:write\"]", "last_used_at": null, "expires_at": "2127-01-31 12:00:00",
            "created_at": "2026-01-31 12:00:00.5",
        }));
        let ImportRow { draft, id, created_at, enabled, .. } = wanted.unwrap();
        assert_eq!((&*draft.account, &*draft.name), ("user-5", "phone"));
        assert_eq!(draft.permissions, ["calls:read", "calls:write"]);
        assert_eq!(Date::new(draft.expires_at.unwrap()).to_string(), "2127-01-31T12:00:00Z");
        assert_eq!(created_at.unwrap().to_string(), "2026-01-31T12:00:00Z");
        assert!(enabled && id.len() == 12);
    }

    #[test]
    fn values_come_as_texts_or_as_they_are() {
        let wanted = read(json!({
            "sha256": HASH, "account": "acme", "permissions": ["a:b"], "limits": { "minute": "5/1m" },
            "concurrent_calls": 7, "enabled": false, "callgate_id": "abcdefghijkl",
        }));
        let wanted = wanted.unwrap();
        assert_eq!(wanted.draft.limits, [("minute".to_owned(), "5/1m".to_owned())]);
        assert_eq!((wanted.draft.concurrent_calls, wanted.enabled, &*wanted.id), (Some(7), false, "abcdefghijkl"));
        let wanted = read(json!({
            "hash": HASH.to_uppercase(), "account": "acme", "permissions": "a:b, c:d", "limits": "minute=5/1m hour=9/1h",
            "concurrent_calls": "7", "enabled": "0",
        }));
        let wanted = wanted.unwrap();
        assert_eq!((wanted.draft.limits.len(), wanted.draft.permissions.len()), (2, 2));
        assert_eq!((wanted.draft.concurrent_calls, wanted.enabled), (Some(7), false));
    }

    #[test]
    fn everything_that_is_wrong_is_told_and_no_value_repeated() {
        let faults = read(json!({
            "token": "kal_live_marked", "permissions": {"marked": 1}, "limits": "marked", "concurrent_calls": "marked",
            "enabled": "marked", "expires_at": "marked", "created_at": 5, "callgate_id": "marked", "plan": ["marked"],
        }));
        let faults = faults.unwrap_err();
        let fields: Vec<&str> = faults.iter().map(|fault| fault.field).collect();
        assert_eq!(
            fields,
            [
                "sha256",
                "callgate_id",
                "account",
                "permissions",
                "plan",
                "limits",
                "concurrent_calls",
                "expires_at",
                "created_at",
                "enabled"
            ]
        );
        assert!(faults.iter().all(|fault| !fault.message.contains("marked")), "{faults:?}");
    }
}
