//! The named values of a request, of its query or its JSON body, and what is wrong with them.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::invalid::InvalidFields;
use crate::live_calls::CallId;
use crate::tokens::{Action, Date, State};

/// Items on a page, unless a request says how many, and at most.
pub(super) const DEFAULT_PAGE: usize = 50;
const MAX_PAGE: u64 = 200;

/// How a field's value is read, and what it must be.
pub(super) struct FieldKind<T> {
    must: &'static str,
    read: fn(Value) -> Option<T>,
}

pub(super) const TEXT: FieldKind<String> = FieldKind { must: "be a text", read: parsed };
pub(super) const TEXTS: FieldKind<Vec<String>> = FieldKind { must: "be a list of texts", read: parsed };
pub(super) const BOOL: FieldKind<bool> = FieldKind { must: "be true or false", read: parsed };
pub(super) const NUMBER: FieldKind<u32> = FieldKind { must: "be a whole number that is not negative", read: parsed };
pub(super) const LIST: FieldKind<Vec<Value>> = FieldKind { must: "be a list", read: parsed };
pub(super) const DATE: FieldKind<SystemTime> = FieldKind {
    must: "be a date in UTC such as 2027-01-31T12:00:00Z",
    read: |value| Some(Date::parse(value.as_str()?)?.time()),
};
/// Names and texts such as `120/1m`.
pub(super) const LIMITS: FieldKind<Vec<(String, String)>> = FieldKind {
    must: "be an object of limits such as {\"minute\": \"120/1m\"}",
    read: |value| Some(parsed::<BTreeMap<String, String>>(value)?.into_iter().collect()),
};
pub(super) const STATE: FieldKind<State> = FieldKind {
    must: "be active, expired, disabled or revoked",
    read: |value| State::ALL.into_iter().find(|state| value == state.as_str()),
};
pub(super) const ACTION: FieldKind<Action> = FieldKind {
    must: "be create, import, update, rotate, revoke, enable, disable, reset or end_call",
    read: |value| Action::ALL.into_iter().find(|action| value == action.as_str()),
};
/// Items on a page, in a query.
pub(super) const PAGE_SIZE: FieldKind<usize> = FieldKind {
    must: "be a whole number from 1 to 200",
    read: |value| Some(digits(value.as_str()?).filter(|size| (1..=MAX_PAGE).contains(size))? as usize),
};
/// Where a page of the audit trail begins, in a query. Redis holds integers up to 2^53 exactly.
pub(super) const AUDIT_CURSOR: FieldKind<u64> = FieldKind {
    must: "be the cursor of the page before",
    read: |value| digits(value.as_str()?).filter(|before| *before < 1 << 53),
};

/// The length of the spans that use is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByTime {
    Hour,
    Day,
}

impl ByTime {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }
}

pub(super) const BY_TIME: FieldKind<ByTime> = FieldKind {
    must: "be hour or day",
    read: |value| [ByTime::Hour, ByTime::Day].into_iter().find(|by| value == by.as_str()),
};
/// True or false, in a query.
pub(super) const FLAG: FieldKind<bool> = FieldKind {
    must: "be true or false",
    read: |value| match value.as_str()? {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    },
};
/// Where a page of calls begins, in a query.
pub(super) const CALL_CURSOR: FieldKind<CallId> =
    FieldKind { must: "be the cursor of the page before", read: |value| value.as_str()?.parse().ok() };
/// Why a call is closed: it must fit into a Close frame (RFC 6455 §5.5).
pub(super) const REASON: FieldKind<String> = FieldKind {
    must: "be 1 to 100 characters of printable ASCII",
    read: |value| {
        let reason = value.as_str().filter(|reason| (1..=100).contains(&reason.len()))?;
        reason.bytes().all(|byte| (0x20..0x7f).contains(&byte)).then(|| reason.to_owned())
    },
};

fn parsed<T: DeserializeOwned>(value: Value) -> Option<T> {
    serde_json::from_value(value).ok()
}

/// Digits as a number, without a sign.
pub(super) fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Fields to be taken out one by one; the names that are left in the end are unknown.
#[derive(Default)]
pub(super) struct Fields {
    given: Vec<(String, Value)>,
    known: Vec<&'static str>,
    invalid: InvalidFields,
}

impl Fields {
    /// `known`: names that need not be taken out.
    pub(super) fn new(fields: Vec<(String, Value)>, known: &[&'static str]) -> Self {
        let mut all = Self { known: known.to_vec(), ..Self::default() };
        for (name, value) in fields {
            if all.given.iter().any(|(other, _)| *other == name) {
                all.error(&name, "may be given only once");
            } else {
                all.given.push((name, value));
            }
        }
        all
    }

    /// Adds that a field is wrong; `must` says what it must be.
    pub(super) fn error(&mut self, name: &str, must: &str) {
        self.invalid.add(name, format!("{name} {must}"));
    }

    /// The value of a field, if it is given.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        let at = self.given.iter().position(|(given, _)| given == name)?;
        Some(self.given.swap_remove(at).1)
    }

    /// A field that may be absent or null.
    pub(super) fn get<T>(&mut self, name: &'static str, kind: &FieldKind<T>) -> Option<T> {
        self.get_nullable(name, kind).flatten()
    }

    /// A field that may be absent (the outer `None`) or null (the inner).
    pub(super) fn get_nullable<T>(&mut self, name: &'static str, kind: &FieldKind<T>) -> Option<Option<T>> {
        let value = self.take(name)?;
        if value.is_null() {
            return Some(None);
        }
        let read = (kind.read)(value);
        if read.is_none() {
            self.error(name, &format!("must {}", kind.must));
        }
        read.map(Some)
    }

    /// A text that must be given.
    pub(super) fn require_text(&mut self, name: &'static str) -> String {
        let errors = self.invalid.count();
        let text = self.get(name, &TEXT);
        if text.is_none() && self.invalid.count() == errors {
            self.error(name, "must be given");
        }
        text.unwrap_or_default()
    }

    /// Whether nothing is wrong with any field; to be called when all are taken.
    pub(super) fn finish(&mut self) -> Result<(), InvalidFields> {
        for (name, _) in std::mem::take(&mut self.given) {
            if !self.known.contains(&name.as_str()) {
                self.invalid.add_unknown(&name, &self.known);
            }
        }
        let invalid = std::mem::take(&mut self.invalid);
        if invalid.count() == 0 { Ok(()) } else { Err(invalid) }
    }
}
