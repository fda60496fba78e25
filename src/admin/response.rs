//! Responses of the admin listener: text and JSON that no cache keeps.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde_json::{Value, json};

use crate::tokens::TokenView;

pub(super) type AdminResponse = Response<Full<Bytes>>;

pub(super) fn json_response(status: StatusCode, body: &impl Serialize) -> AdminResponse {
    // Bodies have text keys and no numbers that JSON lacks.
    let text = serde_json::to_string(body).unwrap_or_else(|_| "{}".to_owned());
    response(status, "application/json", text + "\n")
}

/// One token with its `ETag`, and what `more` says besides.
pub(super) fn token_response(status: StatusCode, token: &TokenView<'_>, more: Value) -> AdminResponse {
    let mut body = json!(token);
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    let mut response = json_response(status, &body);
    set_header(&mut response, header::ETAG, etag(token.version));
    response
}

pub(super) fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> AdminResponse {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Sets a header whose value is made here: of digits, ids, method names and quoted numbers, which are always valid.
pub(super) fn set_header(response: &mut AdminResponse, name: HeaderName, value: impl TryInto<HeaderValue>) {
    if let Ok(value) = value.try_into() {
        response.headers_mut().insert(name, value);
    }
}

/// The version of a token as an `ETag`.
pub(super) fn etag(version: u64) -> String {
    format!("\"{version}\"")
}
