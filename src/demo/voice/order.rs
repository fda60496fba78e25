//! What a client asks for when it places a call, and how its mistakes are told: all fields at once.

use serde_json::{Map, Value};

use super::problem::{FieldErrors, Problem};

/// A call to place; both numbers are E.164.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) to: String,
    pub(super) from: String,
    pub(super) record: bool,
}

impl Order {
    /// The call that stands when the server starts, so that the feed has something to tell from the first second. Its
    /// numbers belong to nobody (NANP 555-0100 to 555-0199).
    pub(super) fn sample() -> Self {
        Self { to: "+15555550100".into(), from: "+15555550101".into(), record: false }
    }

    /// Reads the JSON body of a request.
    ///
    /// # Errors
    /// [`Problem::NotJson`] when it is no JSON object, [`Problem::Invalid`] with every bad field.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Problem> {
        let fields: Map<String, Value> = serde_json::from_slice(body).map_err(|_| Problem::NotJson)?;
        let mut errors = FieldErrors::new();
        let to = number(&fields, "to", &mut errors);
        let from = number(&fields, "from", &mut errors);
        let record = flag(&fields, "record", &mut errors);
        match (to, from, record) {
            (Some(to), Some(from), Some(record)) => Ok(Self { to, from, record }),
            _ => Err(Problem::Invalid(errors)),
        }
    }
}

fn number(fields: &Map<String, Value>, name: &'static str, errors: &mut FieldErrors) -> Option<String> {
    match fields.get(name) {
        Some(Value::String(text)) if is_e164(text) => return Some(text.clone()),
        None | Some(Value::Null) => errors.add(name, format!("The {name} field is required.")),
        Some(_) => errors.add(name, format!("The {name} field must be an E.164 number, such as +15551234567.")),
    }
    None
}

fn flag(fields: &Map<String, Value>, name: &'static str, errors: &mut FieldErrors) -> Option<bool> {
    match fields.get(name) {
        None | Some(Value::Null) => Some(false),
        Some(Value::Bool(flag)) => Some(*flag),
        Some(_) => {
            errors.add(name, format!("The {name} field must be true or false."));
            None
        }
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
    fn the_sample_is_a_good_order() {
        let Order { to, from, .. } = Order::sample();
        assert!(is_e164(&to) && is_e164(&from));
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let Err(Problem::Invalid(errors)) = Order::parse(br#"{"to":5,"record":"yes"}"#) else {
            panic!("it is invalid")
        };
        let told = serde_json::to_value(&errors).unwrap();
        assert_eq!(
            told,
            serde_json::json!({
                "to": ["The to field must be an E.164 number, such as +15551234567."],
                "from": ["The from field is required."],
                "record": ["The record field must be true or false."],
            })
        );
    }

    #[test]
    fn what_is_no_json_object_is_not_an_order() {
        for body in ["", "{", "[]", "null", "7", "{} {}", "\u{1}"] {
            assert!(matches!(Order::parse(body.as_bytes()), Err(Problem::NotJson)), "{body:?}");
        }
    }
}
