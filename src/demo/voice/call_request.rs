//! The JSON body that places a call. Its errors are reported all at once.

use serde_json::{Map, Value};

use super::error::{DemoError, FieldErrors};

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
