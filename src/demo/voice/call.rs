//! A call: its name, its state and its JSON form.

use std::fmt;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

/// The name of a call: `call_` and its number, counted from 1 in the order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CallId(pub(super) u64);

impl CallId {
    /// Reads a name as [`fmt::Display`] writes it; no other spelling is taken.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let number = text.strip_prefix("call_")?;
        let id = Self(number.parse().ok()?);
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call_{}", self.0)
    }
}

impl Serialize for CallId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CallState {
    Ringing,
    Answered,
    Ended,
}

/// One call.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Call {
    pub(super) id: CallId,
    pub(super) to: String,
    pub(super) from: String,
    /// Whether it is to be recorded; kept and shown, nothing more.
    pub(super) record: bool,
    pub(super) state: CallState,
    #[serde(serialize_with = "as_rfc3339")]
    pub(super) created_at: SystemTime,
    /// Ticks since it was placed.
    #[serde(skip)]
    pub(super) age: u32,
}

/// Writes a moment as RFC 3339 in UTC, to the millisecond.
pub(super) fn as_rfc3339<S: Serializer>(moment: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*moment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        assert_eq!(CallId::parse("call_12"), Some(CallId(12)));
        for text in
            ["", "12", "call_", "call_012", "call_+12", "call_-1", "CALL_12", "call_12 ", "call_99999999999999999999"]
        {
            assert_eq!(CallId::parse(text), None, "{text:?}");
        }
    }
}
