//! The body of a request: a JSON object of a bounded size, that comes in time.

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Body;
use http_body_util::BodyExt;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::error::ApiError;
use super::fields::Fields;

/// A body must have come within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// A body of up to this many times the allowed size is read to its end before it is refused, so that a client that is still
/// sending sees why.
const DISCARD_FACTOR: usize = 16;

/// What body an endpoint takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyKind {
    /// None; a body that comes all the same is ignored.
    Nothing,
    /// JSON of at most this many bytes.
    Json(usize),
    /// The same, or none.
    OptionalJson(usize),
}

/// Reads the body that the endpoint takes.
pub(super) async fn read<B>(kind: BodyKind, headers: &HeaderMap, body: B) -> Result<Fields, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let max_bytes = match kind {
        BodyKind::Nothing => return Ok(Fields::default()),
        BodyKind::Json(max_bytes) | BodyKind::OptionalJson(max_bytes) => max_bytes,
    };
    let collected = tokio::time::timeout(BODY_TIMEOUT, collect(body, max_bytes)).await;
    let bytes = collected.unwrap_or(Err(ApiError::BodyTimeout))?;
    if bytes.is_empty() && matches!(kind, BodyKind::OptionalJson(_)) {
        return Ok(Fields::default());
    }
    if !is_json(headers) {
        return Err(ApiError::MediaType);
    }
    parse(&bytes)
}

async fn collect<B>(mut body: B, max_bytes: usize) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let too_large = Err(ApiError::TooLarge(max_bytes));
    let discarded = max_bytes.saturating_mul(DISCARD_FACTOR);
    if body.size_hint().lower() > discarded as u64 {
        return too_large;
    }
    let (mut bytes, mut length) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let broken = |_| ApiError::Malformed("The body broke off or is not framed correctly.".to_owned());
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        length += data.len();
        if length > discarded {
            return too_large;
        }
        if length <= max_bytes {
            bytes.extend_from_slice(&data);
        }
    }
    if length > max_bytes { too_large } else { Ok(bytes.freeze()) }
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

fn parse(bytes: &[u8]) -> Result<Fields, ApiError> {
    // The parser's messages may repeat a secret: only the position is reported.
    let object: Object = serde_json::from_slice(bytes).map_err(|error| {
        ApiError::Malformed(match error.classify() {
            serde_json::error::Category::Data => "The body must be a JSON object.".to_owned(),
            serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof
            | serde_json::error::Category::Io => {
                format!("The body is not JSON: see line {}, column {}.", error.line(), error.column())
            }
        })
    })?;
    Ok(Fields::new(object.0, &[]))
}

/// A JSON object with all its fields, also those that come twice.
struct Object(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
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
        deserializer.deserialize_map(ObjectVisitor)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http_body_util::Full;

    use super::super::fields::{DATE, LIMITS, NUMBER, TEXT, TEXTS};
    use super::*;

    async fn read_text(body_kind: BodyKind, kind: &str, body: &str) -> Result<Fields, ApiError> {
        let mut headers = HeaderMap::new();
        if !kind.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(kind).unwrap());
        }
        read(body_kind, &headers, Full::from(body.to_owned())).await
    }

    #[tokio::test]
    async fn only_json_of_a_bounded_size_is_read() {
        let json = BodyKind::Json(10);
        for kind in ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\""] {
            assert!(read_text(json, kind, "{}").await.is_ok(), "{kind}");
        }
        for kind in [
            "",
            "text/plain",
            "application/jsonp",
            "application/json; charset=latin1",
            "application/x-www-form-urlencoded",
        ] {
            assert!(matches!(read_text(json, kind, "{}").await, Err(ApiError::MediaType)), "{kind}");
        }
        assert!(read_text(json, "application/json", "{       }").await.is_ok());
        assert!(matches!(read_text(json, "application/json", "{          }").await, Err(ApiError::TooLarge(10))));
        for broken in ["", "{", "{}x", "[]", "null", "\"s3cret\"", "{'a':1}", "{\"\\ud800\":1}"] {
            let Err(ApiError::Malformed(message)) = read_text(BodyKind::Json(20), "application/json", broken).await
            else {
                panic!("{broken} is taken")
            };
            assert!(!message.contains("s3cret"), "{message}");
        }
        assert!(read_text(BodyKind::OptionalJson(10), "", "").await.unwrap().finish().is_ok());
        assert!(read_text(BodyKind::OptionalJson(10), "", "{}").await.is_err());
        assert!(read_text(BodyKind::Nothing, "", "anything at all").await.unwrap().finish().is_ok());
    }

    #[tokio::test]
    async fn every_error_of_every_field_is_reported() {
        let text = r#"{"name": 5, "name": 6, "permissions": ["a", 1], "limits": {"minute": 60}, "plann": null,
            "concurrent_calls": -1, "expires_at": "tomorrow"}"#;
        let mut fields = read_text(BodyKind::Json(1_000), "application/json", text).await.unwrap();
        fields.require_text("name");
        fields.require_text("account");
        fields.get("permissions", &TEXTS);
        fields.get("plan", &TEXT);
        fields.get("limits", &LIMITS);
        fields.get("concurrent_calls", &NUMBER);
        fields.get("expires_at", &DATE);
        let errors = serde_json::to_value(fields.finish().unwrap_err()).unwrap();
        let fields: Vec<&String> = errors.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["account", "concurrent_calls", "expires_at", "limits", "name", "permissions", "plann"]);
        assert_eq!(errors["name"].as_array().unwrap().len(), 2);
        assert_eq!(errors["account"][0], "account must be given");
        assert!(errors["plann"][0].as_str().unwrap().contains("did you mean \"plan\"?"));
    }
}
