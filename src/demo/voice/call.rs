//! A call of the sample API: id, state and JSON form.

use std::fmt;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

/// `call_` and a number, counted from 1 in the order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CallId(pub(super) u64);

impl CallId {
    /// Accepts only what [`fmt::Display`] writes.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CallState {
    Ringing,
    Answered,
    Ended,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct VoiceCall {
    pub(super) id: CallId,
    pub(super) to: String,
    pub(super) from: String,
    /// Shown only: nothing is recorded.
    pub(super) record: bool,
    pub(super) state: CallState,
    #[serde(serialize_with = "as_rfc3339")]
    pub(super) created_at: SystemTime,
    /// Ticks since it was placed.
    #[serde(skip)]
    pub(super) age: u32,
}

pub(super) fn as_rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
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
