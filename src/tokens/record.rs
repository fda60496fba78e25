//! What is stored of a token: everything but its text.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::date::Date;
use super::limit_text::{self, limit_text, parse_limit};
use super::token::TokenHash;
use crate::config::Limit;

/// Permissions that one token may hold: they all travel in one header to the upstream.
pub(super) const MAX_PERMISSIONS: usize = 64;

/// Characters of a name: as many as an ordinary column of a database holds.
const MAX_NAME_CHARS: usize = 255;

/// One token as it is stored. Its JSON form is what Redis keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its public id.
    pub id: String,
    /// A name for people.
    pub name: String,
    /// The account that owns it.
    pub account: String,
    /// What it may do.
    #[serde(default)]
    pub permissions: Vec<String>,
    /// Its plan; `None`: the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Limits that replace or extend those of its plan.
    #[serde(default, with = "limit_map", skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
    /// Calls that it may have open at one time, in place of its plan's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent_calls: Option<u32>,
    /// Requests that it may have in flight at one time on each instance, in place of its plan's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u32>,
    /// The tokens that it stands for, the current one first.
    pub hashes: Vec<StoredHash>,
    /// When it was made; `None` if a file that was written by hand doesn't say.
    #[serde(default)]
    pub created_at: Option<Date>,
    /// When it ends.
    #[serde(default)]
    pub expires_at: Option<Date>,
    /// Whether it is switched on.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// When it was revoked.
    #[serde(default)]
    pub revoked_at: Option<Date>,
    /// What tells a repeated request for the same token from one for another; `None`: the request had no key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Fields of a newer Callgate: kept as they are, so that an older one doesn't lose them when it writes.
    #[serde(flatten)]
    pub(super) others: Others,
}

/// The hash of one token of a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredHash {
    /// The SHA-256 of the token, or for Laravel Sanctum's `id|secret` that of `secret`.
    #[serde(with = "hex")]
    pub sha256: TokenHash,
    /// Until when a secret that was replaced still works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Date>,
}

/// How a token is used: written late, and no part of the record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// When a request of it was last admitted; about a minute late. `None`: never.
    pub last_used: Option<Date>,
    /// How many were.
    pub requests: u64,
}

/// A record with all that is kept beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRecord {
    /// The version of the record.
    pub version: u64,
    /// The record.
    pub record: Record,
    /// How the token is used.
    pub usage: Usage,
}

/// Unknown fields. They don't print: nobody knows what is in them.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Others(serde_json::Map<String, serde_json::Value>);

impl fmt::Debug for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} hidden]", self.0.len())
    }
}

/// Whether a token works, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It works.
    Active,
    /// Its time is over.
    Expired,
    /// It is switched off.
    Disabled,
    /// It was revoked, for good.
    Revoked,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Active, Self::Expired, Self::Disabled, Self::Revoked];

    /// The state as a word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
        }
    }
}

impl Record {
    /// Whether the token works at `now`.
    pub(crate) fn state(&self, now: SystemTime) -> State {
        if self.revoked_at.is_some() {
            State::Revoked
        } else if !self.enabled {
            State::Disabled
        } else if self.expires_at.is_some_and(|end| end.time() <= now) {
            State::Expired
        } else {
            State::Active
        }
    }

    /// What stands for a version where there is none: a number below 2^53 that every change of the record changes.
    pub(super) fn fingerprint(&self) -> u64 {
        let json = serde_json::to_string(self).expect("records have only text keys");
        TokenHash::of(&json).first_64_bits() >> 11
    }

    /// The stored hash that equals `hash`; each is compared in constant time.
    pub(crate) fn holding(&self, hash: TokenHash) -> Option<&StoredHash> {
        self.hashes.iter().find(|stored| stored.sha256 == hash)
    }
}

/// Why a name can't be one, if it can't.
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    let good =
        (1..=MAX_NAME_CHARS).contains(&name.chars().count()) && !name.contains(char::is_control) && name.trim() == name;
    if good { Ok(()) } else { Err("must be 1 to 255 characters, without control characters and surrounding spaces") }
}

/// Why an account can't be one, if it can't: it is sent to upstreams in a header.
pub(super) fn check_account(account: &str) -> Result<(), &'static str> {
    let printable = account.bytes().all(|b| (b' '..=b'~').contains(&b));
    let good = (1..=128).contains(&account.len()) && printable && account.trim() == account;
    if good { Ok(()) } else { Err("must be 1 to 128 printable ASCII characters, without surrounding spaces") }
}

fn yes() -> bool {
    true
}

/// `TokenHash` as 64 hexadecimal digits.
mod hex {
    use super::{Deserialize, Deserializer, Serializer, TokenHash};

    pub(super) fn serialize<S: Serializer>(hash: &TokenHash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hash.to_hex())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TokenHash, D::Error> {
        let text = String::deserialize(deserializer)?;
        TokenHash::from_hex(&text).ok_or_else(|| serde::de::Error::custom("not 64 hexadecimal digits"))
    }
}

/// Limits as `{"minute": "120/1m"}`.
pub(super) mod limit_map {
    use super::{BTreeMap, Deserialize, Deserializer, Limit, Serializer, limit_text, parse_limit};

    pub(in crate::tokens) fn serialize<S: Serializer>(limits: &[Limit], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(limits.iter().map(|limit| (&*limit.name, limit_text(limit))))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Limit>, D::Error> {
        let texts = BTreeMap::<String, String>::deserialize(deserializer)?;
        if texts.len() > limit_text::MAX_OVERRIDES {
            return Err(serde::de::Error::custom("too many limits"));
        }
        texts.iter().map(|(name, text)| parse_limit(name, text).map_err(serde::de::Error::custom)).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    /// A record of the token `token` that was made at 1970 + 100 s.
    pub(crate) fn record_of(token: &str) -> Record {
        Record {
            id: "abc".into(),
            name: "Dialler".into(),
            account: "acme".into(),
            permissions: vec!["calls:read".into(), "calls:write".into()],
            plan: None,
            limits: Vec::new(),
            concurrent_calls: None,
            in_flight: None,
            hashes: vec![StoredHash { sha256: TokenHash::of(token), expires_at: None }],
            created_at: Some(Date::new(UNIX_EPOCH + Duration::from_secs(100))),
            expires_at: None,
            enabled: true,
            revoked_at: None,
            request: None,
            others: Others::default(),
        }
    }

    #[test]
    fn json_keeps_what_it_does_not_know() {
        let mut json = serde_json::to_value(record_of("secret-token")).unwrap();
        json["limits"] = serde_json::json!({ "minute": "120/1m" });
        json["from_the_future"] = serde_json::json!({ "a": [] });
        let record: Record = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(record.limits.len(), 1);
        assert_eq!(serde_json::to_value(&record).unwrap(), json);
    }

    #[test]
    fn records_of_older_and_newer_versions_keep_their_meaning() {
        let old = serde_json::to_value(record_of("secret-token")).unwrap();
        assert!(old.get("in_flight").is_none(), "an older version would write it back as its own unknown field");
        let mut record: Record = serde_json::from_value(old).unwrap();
        assert_eq!(record.in_flight, None);
        record.in_flight = Some(3);
        let new = serde_json::to_value(&record).unwrap();
        assert_eq!(new["in_flight"], 3);
        assert_eq!(serde_json::from_value::<Record>(new).unwrap(), record);
    }

    #[test]
    fn debug_prints_no_hash_and_nothing_unknown() {
        let mut json = serde_json::to_value(record_of("secret-token")).unwrap();
        json["from_the_future"] = "confidential".into();
        let record: Record = serde_json::from_value(json).unwrap();
        let printed = format!("{record:?}");
        assert!(!printed.contains("confidential") && !printed.contains(&TokenHash::of("secret-token").to_hex()[..6]));
    }

    #[test]
    fn a_record_ends_at_its_second() {
        let end = UNIX_EPOCH + Duration::from_secs(1_000);
        let mut record = record_of("secret-token");
        record.expires_at = Some(Date::new(end));
        assert_eq!(record.state(end - Duration::from_millis(1)), State::Active);
        assert_eq!(record.state(end), State::Expired);
        record.enabled = false;
        assert_eq!(record.state(UNIX_EPOCH), State::Disabled);
        record.revoked_at = Some(Date::new(end));
        assert_eq!(record.state(UNIX_EPOCH), State::Revoked);
    }

    #[test]
    fn names_and_accounts_have_bounds() {
        for good in ["x", "Café 24/7", &"é".repeat(255)] {
            assert_eq!(check_name(good), Ok(()));
        }
        for bad in ["", " x", "x ", "a\nb", "\u{7f}", &"x".repeat(256)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(check_account("ACME Corp #1"), Ok(()));
        for bad in ["", " a", "a\r\nX-Callgate-Plan: gold", "Café", &"x".repeat(129)] {
            assert!(check_account(bad).is_err(), "{bad:?}");
        }
    }
}
