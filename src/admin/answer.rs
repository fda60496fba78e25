//! What the admin listener answers: pages and JSON, never kept by a cache.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use crate::config::REQUEST_ID;

pub(super) type Answer = Response<Full<Bytes>>;

/// An answer in JSON.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    // What is told here has text keys and no numbers that JSON lacks.
    let text = serde_json::to_string(body).unwrap_or_else(|_| "{}".to_owned());
    page(status, "application/json", text + "\n")
}

/// Any other answer.
pub(super) fn page(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// The version of a token as an `ETag`.
pub(super) fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

/// Stamps the id of the request that is answered.
pub(super) fn stamp(answer: &mut Answer, request_id: HeaderValue) {
    answer.headers_mut().insert(REQUEST_ID, request_id);
}
