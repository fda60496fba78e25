//! The body of a request: within bounds, JSON, an object, and of that only fields that somebody knows.

use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Body;
use http_body_util::BodyExt;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::faults::Faults;
use super::problem::Problem;
use super::router::Takes;
use crate::tokens::Date;

/// A body must be there within this time.
const PATIENCE: Duration = Duration::from_secs(30);
/// A body of up to so many times the allowed size is read to its end before it is refused.
const LET_GO: usize = 16;

/// Reads the body as the endpoint takes it.
pub(super) async fn read<B>(takes: Takes, headers: &HeaderMap, body: B) -> Result<Fields, Problem>
where
    B: Body<Data = Bytes> + Unpin,
{
    let most = match takes {
        Takes::Nothing => return Ok(Fields::default()),
        Takes::Json(most) | Takes::JsonIfAny(most) => most,
    };
    let collected = tokio::time::timeout(PATIENCE, collect(body, most)).await;
    let bytes = collected.unwrap_or(Err(Problem::TooSlow))?;
    if bytes.is_empty() && matches!(takes, Takes::JsonIfAny(_)) {
        return Ok(Fields::default());
    }
    if !is_json(headers) {
        return Err(Problem::MediaType);
    }
    Fields::parse(&bytes)
}

/// A body of at most `most` bytes. Some more are read and let go, so that a client that is still sending gets to see why.
async fn collect<B>(mut body: B, most: usize) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes> + Unpin,
{
    let too_large = Err(Problem::TooLarge(most));
    let bearable = most.saturating_mul(LET_GO);
    if body.size_hint().lower() > bearable as u64 {
        return too_large;
    }
    let (mut bytes, mut length) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let broken = |_| Problem::Malformed("The body broke off, or is not framed as HTTP demands.".to_owned());
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        length += data.len();
        if length > bearable {
            return too_large;
        }
        if length <= most {
            bytes.extend_from_slice(&data);
        }
    }
    if length > most { too_large } else { Ok(bytes.freeze()) }
}

/// `application/json`, in UTF-8 if it says so, and not compressed.
fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(given), None) = (types.next().and_then(|value| value.to_str().ok()), types.next()) else { return false };
    let mut parts = given.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    let is_utf8 = parts.all(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        !name.eq_ignore_ascii_case("charset") || value.trim_matches('"').eq_ignore_ascii_case("utf-8")
    });
    is_json && is_utf8 && !headers.contains_key(header::CONTENT_ENCODING)
}

/// The fields of a JSON object, to be taken out one by one; what is left in the end is a fault.
#[derive(Default)]
pub(super) struct Fields {
    given: Vec<(String, Value)>,
    known: Vec<&'static str>,
    faults: Faults,
}

/// Not the values: a secret may be among them.
impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.given.iter().map(|(name, _)| name)).finish()
    }
}

impl Fields {
    fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        // Texts of errors may repeat what stands there, which may be a secret: only their place is told.
        let object: Object = serde_json::from_slice(bytes).map_err(|error| {
            let message = match error.classify() {
                serde_json::error::Category::Data => "The body must be a JSON object.".to_owned(),
                serde_json::error::Category::Syntax
                | serde_json::error::Category::Eof
                | serde_json::error::Category::Io => {
                    format!("The body is not JSON: see line {}, column {}.", error.line(), error.column())
                }
            };
            Problem::Malformed(message)
        })?;
        let mut fields = Self::default();
        for (name, value) in object.0 {
            if fields.given.iter().any(|(other, _)| *other == name) {
                fields.fault(&name, "may be given only once");
            } else {
                fields.given.push((name, value));
            }
        }
        Ok(fields)
    }

    /// Adds that a field is wrong; `must` says what it must be.
    pub(super) fn fault(&mut self, name: &str, must: &str) {
        self.faults.add(name, format!("{name} {must}"));
    }

    /// A field's value, if it is there.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        let at = self.given.iter().position(|(given, _)| given == name)?;
        Some(self.given.swap_remove(at).1)
    }

    /// A field as `read` understands it; an inner `None` stands for `null`.
    fn read<T>(&mut self, name: &'static str, must: &str, read: impl FnOnce(Value) -> Option<T>) -> Option<Option<T>> {
        match self.take(name)? {
            Value::Null => Some(None),
            value => {
                let read = read(value);
                if read.is_none() {
                    self.fault(name, must);
                }
                Some(Some(read?))
            }
        }
    }

    /// A text, or null.
    pub(super) fn text(&mut self, name: &'static str) -> Option<Option<String>> {
        self.read(name, "must be a text", |value| if let Value::String(text) = value { Some(text) } else { None })
    }

    /// A text that must be there.
    pub(super) fn needed_text(&mut self, name: &'static str) -> String {
        let faults = self.faults.len();
        let text = self.text(name).flatten();
        if text.is_none() && self.faults.len() == faults {
            self.fault(name, "must be given");
        }
        text.unwrap_or_default()
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, name: &'static str) -> Option<Option<Vec<String>>> {
        let text = |value| if let Value::String(text) = value { Some(text) } else { None };
        self.read(name, "must be a list of texts", |value| match value {
            Value::Array(items) => items.into_iter().map(text).collect(),
            _ => None,
        })
    }

    /// Limits such as `{"minute": "120/1m"}`.
    pub(super) fn limits(&mut self, name: &'static str) -> Option<Option<Vec<(String, String)>>> {
        let pair = |(name, value)| if let Value::String(text) = value { Some((name, text)) } else { None };
        self.read(name, "must be an object of limits such as {\"minute\": \"120/1m\"}", |value| match value {
            Value::Object(map) => map.into_iter().map(pair).collect(),
            _ => None,
        })
    }

    /// A whole number up to 2^32 - 1.
    pub(super) fn number(&mut self, name: &'static str) -> Option<Option<u32>> {
        self.read(name, "must be a whole number that is not negative", |value| value.as_u64()?.try_into().ok())
    }

    /// True or false.
    pub(super) fn truth(&mut self, name: &'static str) -> Option<Option<bool>> {
        self.read(name, "must be true or false", |value| value.as_bool())
    }

    /// A list of anything.
    pub(super) fn list(&mut self, name: &'static str) -> Option<Option<Vec<Value>>> {
        self.read(name, "must be a list", |value| if let Value::Array(items) = value { Some(items) } else { None })
    }

    /// A date.
    pub(super) fn date(&mut self, name: &'static str) -> Option<Option<SystemTime>> {
        self.read(name, "must be a date in UTC such as 2027-01-31T12:00:00Z", |value| {
            Some(date(value.as_str()?)?.time())
        })
    }

    /// Whether nothing is wrong with any field; to be asked when all are taken.
    pub(super) fn done(mut self) -> Result<(), Problem> {
        for (name, _) in std::mem::take(&mut self.given) {
            self.faults.unknown(&name, &self.known);
        }
        self.faults.done()
    }
}

/// A date of RFC 3339, in UTC.
pub(super) fn date(text: &str) -> Option<Date> {
    Date::parse(text)
}

/// A JSON object with all its fields, also those that come twice.
struct Object(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http_body_util::Full;

    use super::*;

    async fn intake(takes: Takes, kind: &str, body: &str) -> Result<Fields, Problem> {
        let mut headers = HeaderMap::new();
        if !kind.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(kind).unwrap());
        }
        read(takes, &headers, Full::from(body.to_owned())).await
    }

    #[tokio::test]
    async fn only_json_of_a_bounded_size_is_read() {
        let json = Takes::Json(10);
        for kind in ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\""] {
            assert!(intake(json, kind, "{}").await.is_ok(), "{kind}");
        }
        for kind in [
            "",
            "text/plain",
            "application/jsonp",
            "application/json; charset=latin1",
            "application/x-www-form-urlencoded",
        ] {
            assert!(matches!(intake(json, kind, "{}").await, Err(Problem::MediaType)), "{kind}");
        }
        assert!(intake(json, "application/json", "{       }").await.is_ok());
        assert!(matches!(intake(json, "application/json", "{          }").await, Err(Problem::TooLarge(10))));
        for broken in ["", "{", "{}x", "[]", "null", "\"s3cret\"", "{'a':1}", "{\"\\ud800\":1}"] {
            let Err(Problem::Malformed(message)) = intake(Takes::Json(20), "application/json", broken).await else {
                panic!("{broken} is taken")
            };
            assert!(!message.contains("s3cret"), "{message}");
        }
        assert!(intake(Takes::JsonIfAny(10), "", "").await.unwrap().done().is_ok());
        assert!(intake(Takes::JsonIfAny(10), "", "{}").await.is_err());
        assert!(intake(Takes::Nothing, "", "anything at all").await.unwrap().done().is_ok());
    }

    #[tokio::test]
    async fn every_fault_of_every_field_is_told() {
        let text = r#"{"name": 5, "name": 6, "permissions": ["a", 1], "limits": {"minute": 60}, "plann": null,
            "concurrent_calls": -1, "expires_at": "tomorrow"}"#;
        let mut fields = intake(Takes::Json(1_000), "application/json", text).await.unwrap();
        fields.needed_text("name");
        fields.needed_text("account");
        fields.texts("permissions");
        fields.text("plan");
        fields.limits("limits");
        fields.number("concurrent_calls");
        fields.date("expires_at");
        let Err(Problem::Invalid(faults)) = fields.done() else { panic!("no faults") };
        let told = faults.into_json();
        let fields: Vec<&String> = told.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["account", "concurrent_calls", "expires_at", "limits", "name", "permissions", "plann"]);
        assert_eq!(told["name"].as_array().unwrap().len(), 2);
        assert_eq!(told["account"][0], "account must be given");
        assert!(told["plann"][0].as_str().unwrap().contains("did you mean \"plan\"?"));
    }
}
