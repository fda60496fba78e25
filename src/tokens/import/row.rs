//! One row of an export as the token that it asks for.

use serde_json::{Map, Value};

use super::table::HASHES;
use crate::tokens::date::Date;
use crate::tokens::draft::Draft;
use crate::tokens::error::Fault;
use crate::tokens::token::{self, TokenHash};

/// The columns that mean something, and those of Laravel Sanctum's table that may as well be there.
pub const COLUMNS: [&str; 20] = [
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
    "in_flight",
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
            let message = "callgate_id must be 12 letters and digits, as those of Callgate's own tokens are";
            reader.fault("callgate_id", message);
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
            in_flight: reader.number("in_flight"),
            expires_at: reader.date("expires_at").map(Date::time),
        };
        let (created_at, enabled) = (reader.date("created_at"), reader.flag("enabled").unwrap_or(true));
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

    /// The value of a column in the form that `read` makes of it, or a fault that says what it must be.
    fn read<T>(&mut self, name: &'static str, must: &str, read: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let value = read(self.value(name)?);
        if value.is_none() {
            self.fault(name, &format!("{name} must {must}"));
        }
        value
    }

    fn hash(&mut self) -> Option<TokenHash> {
        let value = HASHES.iter().find_map(|name| self.value(name));
        let hash = value.and_then(Value::as_str).and_then(|text| TokenHash::from_hex(text.trim()));
        if hash.is_none() {
            let message = "sha256 must be 64 hexadecimal digits: the SHA-256 of the token, not the token itself";
            self.fault("sha256", message);
        }
        hash
    }

    fn text(&mut self, name: &'static str) -> Option<String> {
        self.read(name, "be a text", |value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        })
    }

    /// Sanctum's tokens belong to a model: `App\Models\User` 5 is `user-5`.
    fn account(&mut self) -> Option<String> {
        self.text("account").or_else(|| {
            let (id, kind) = (self.text("tokenable_id")?, self.text("tokenable_type")?);
            let kind = kind.rsplit(['\\', '/', '.']).next().unwrap_or_default().to_lowercase();
            Some(format!("{kind}-{id}"))
        })
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
        let pair = |(name, limit): (&str, &str)| (name.to_owned(), limit.to_owned());
        let limits =
            self.read("limits", "be such as minute=120/1m, several with blanks between them", |value| match value {
                Value::Object(limits) => {
                    limits.iter().map(|(name, limit)| Some(pair((name, limit.as_str()?)))).collect()
                }
                Value::String(text) => words(text).map(|word| word.split_once('=').map(pair)).collect(),
                _ => None,
            });
        limits.unwrap_or_default()
    }

    fn number(&mut self, name: &'static str) -> Option<u32> {
        self.read(name, "be a whole number", |value| match value {
            Value::String(text) => text.trim().parse().ok(),
            value => value.as_u64().and_then(|number| u32::try_from(number).ok()),
        })
    }

    fn flag(&mut self, name: &'static str) -> Option<bool> {
        self.read(name, "be true or false", |value| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_lowercase);
            match &*text {
                "1" | "true" | "yes" | "t" => Some(true),
                "0" | "false" | "no" | "f" => Some(false),
                _ => None,
            }
        })
    }

    fn date(&mut self, name: &'static str) -> Option<Date> {
        self.read(
            name,
            "be a date in UTC such as 2027-01-31T12:00:00Z or 2027-01-31 12:00:00, or have an offset such as +02",
            |value| Date::parse_database(value.as_str()?.trim()),
        )
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
            "concurrent_calls": 7, "in_flight": 9, "enabled": false, "callgate_id": "abcdefghijkl",
        }));
        let wanted = wanted.unwrap();
        assert_eq!(wanted.draft.limits, [("minute".to_owned(), "5/1m".to_owned())]);
        assert_eq!((wanted.draft.concurrent_calls, wanted.enabled, &*wanted.id), (Some(7), false, "abcdefghijkl"));
        assert_eq!(wanted.draft.in_flight, Some(9));
        let wanted = read(json!({
            "hash": HASH.to_uppercase(), "account": "acme", "permissions": "a:b, c:d", "limits": "minute=5/1m hour=9/1h",
            "concurrent_calls": "7", "enabled": "0",
        }));
        let wanted = wanted.unwrap();
        assert_eq!((wanted.draft.limits.len(), wanted.draft.permissions.len()), (2, 2));
        assert_eq!((wanted.draft.concurrent_calls, wanted.enabled), (Some(7), false));
    }

    #[test]
    fn all_faults_of_a_row_are_reported_without_its_values() {
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
