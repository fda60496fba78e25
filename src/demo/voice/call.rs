//! A call of the sample API: id, state and JSON form, and the JSON body that places one.

use std::fmt;
use std::time::SystemTime;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::response::{DemoError, FieldErrors};

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

/// A call to place; both numbers are E.164.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CallRequest {
    pub(super) to: String,
    pub(super) from: String,
    pub(super) record: bool,
}

impl CallRequest {
    /// Its numbers belong to nobody (NANP 555-0100 to 555-0199).
    pub(super) fn sample() -> Self {
        Self { to: "+15555550100".into(), from: "+15555550101".into(), record: false }
    }

    /// Reads the body; its errors are reported all at once.
    pub(super) fn parse(body: &[u8]) -> Result<Self, DemoError> {
        let fields: Map<String, Value> = serde_json::from_slice(body).map_err(|_| DemoError::NotJson)?;
        let mut errors = FieldErrors::new();
        let mut number = |name| match fields.get(name) {
            Some(Value::String(text)) if is_e164(text) => text.clone(),
            other => {
                let problem = match other {
                    None | Some(Value::Null) => "is required",
                    Some(_) => "must be an E.164 number, such as +15551234567",
                };
                errors.insert(name, vec![format!("The {name} field {problem}.")]);
                String::new()
            }
        };
        let (to, from) = (number("to"), number("from"));
        let record = match fields.get("record") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(record)) => *record,
            Some(_) => {
                errors.insert("record", vec!["The record field must be true or false.".to_owned()]);
                false
            }
        };
        if errors.is_empty() { Ok(Self { to, from, record }) } else { Err(DemoError::Invalid(errors)) }
    }
}

/// A plus sign, then 2 to 15 digits of which the first is not 0 (ITU-T E.164, section 6).
fn is_e164(text: &str) -> bool {
    let Some(digits) = text.strip_prefix('+') else { return false };
    (2..=15).contains(&digits.len()) && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
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

    #[test]
    fn numbers_are_e164() {
        for good in ["+15551234567", "+12", "+123456789012345"] {
            assert!(is_e164(good), "{good}");
        }
        for bad in ["", "+", "+1", "15551234567", "+05551234567", "+1234567890123456", "+1555 123", "+١٢٣٤٥", "+1-555"]
        {
            assert!(!is_e164(bad), "{bad}");
        }
    }

    #[test]
    fn the_sample_is_valid() {
        let CallRequest { to, from, .. } = CallRequest::sample();
        assert!(is_e164(&to) && is_e164(&from));
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let Err(DemoError::Invalid(errors)) = CallRequest::parse(br#"{"to":5,"record":"yes"}"#) else {
            panic!("it is invalid")
        };
        let reported = serde_json::to_value(&errors).unwrap();
        assert_eq!(
            reported,
            serde_json::json!({
                "to": ["The to field must be an E.164 number, such as +15551234567."],
                "from": ["The from field is required."],
                "record": ["The record field must be true or false."],
            })
        );
    }

    #[test]
    fn a_body_that_is_no_json_object_is_rejected() {
        for body in ["", "{", "[]", "null", "7", "{} {}", "\u{1}"] {
            assert!(matches!(CallRequest::parse(body.as_bytes()), Err(DemoError::NotJson)), "{body:?}");
        }
    }
}
