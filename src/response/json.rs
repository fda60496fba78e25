//! Rejections as HTTP clients read them: JSON with a message, a code and the request's id.

use bytes::Bytes;
use http::Response;
use http::header::{self, HeaderValue};

use crate::body::Body;

use super::message::Message;
use super::rejection::Rejection;

#[derive(serde::Serialize)]
struct ErrorBody<'a> {
    message: Message<'a>,
    code: &'a str,
    request_id: &'a str,
}

impl Rejection {
    /// The answer. `realm` is the one of `WWW-Authenticate`; a HEAD gets no body.
    pub fn into_response(self, realm: &str, request_id: &HeaderValue, is_head: bool) -> Response<Body> {
        let (status, code, message) = self.parts();
        let body = ErrorBody { message, code, request_id: request_id.to_str().unwrap_or_default() };
        // Three texts always make JSON.
        let body = Bytes::from(serde_json::to_vec(&body).unwrap_or_default());
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        headers.extend(self.header(realm));
        if !is_head {
            *response.body_mut() = Body::Full(body);
        }
        response
    }
}
