//! The responses of the sample upstream, and why it rejects a request: status, message and headers.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde::Serialize;
use serde_json::json;

pub(super) type DemoResponse = Response<UnsyncBoxBody<Bytes, Infallible>>;

pub(super) fn json_response(status: StatusCode, body: &impl Serialize) -> DemoResponse {
    let text = serde_json::to_vec(body).expect("responses have text keys and finite numbers");
    let mut response = Response::new(Full::from(text).boxed_unsync());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) fn stream_response(kind: &'static str, chunks: impl Stream<Item = Bytes> + Send + 'static) -> DemoResponse {
    let frames = chunks.map(|bytes| Ok(Frame::data(bytes)));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

pub(super) fn empty_response(status: StatusCode) -> DemoResponse {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

/// Messages by field.
pub(super) type FieldErrors = BTreeMap<&'static str, Vec<String>>;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum DemoError {
    NoSuchPath,
    NoSuchCall,
    MethodNotAllowed(&'static [Method]),
    NotDeclaredJson,
    NotJson,
    BodyTooLarge,
    BodyTimeout,
    BodyAborted,
    Invalid(FieldErrors),
    CallEnded,
    NotAnUpgrade,
    WebSocketVersion,
    WebSocketKey,
}

impl DemoError {
    fn status_and_message(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "There is nothing at this path."),
            Self::NoSuchCall => (StatusCode::NOT_FOUND, "There is no such call."),
            Self::MethodNotAllowed(_) => (StatusCode::METHOD_NOT_ALLOWED, "See the Allow header for allowed methods."),
            Self::NotDeclaredJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json."),
            Self::NotJson => (StatusCode::BAD_REQUEST, "The request body is not a JSON object."),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "The request body is larger than 64 KiB."),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "The request body did not arrive in time."),
            Self::BodyAborted => (StatusCode::BAD_REQUEST, "The request body is incomplete."),
            Self::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "The given data was invalid."),
            Self::CallEnded => (StatusCode::CONFLICT, "The call has ended."),
            Self::NotAnUpgrade => (StatusCode::UPGRADE_REQUIRED, "This is a WebSocket: upgrade the connection."),
            Self::WebSocketVersion => (StatusCode::UPGRADE_REQUIRED, "The WebSocket version must be 13."),
            Self::WebSocketKey => (StatusCode::BAD_REQUEST, "The Sec-WebSocket-Key is missing or malformed."),
        }
    }

    pub(super) fn response(&self) -> DemoResponse {
        let (status, message) = self.status_and_message();
        let mut body = json!({ "message": message });
        if let Self::Invalid(errors) = self {
            body["errors"] = json!(errors);
        }
        let mut response = json_response(status, &body);
        let headers = response.headers_mut();
        if let Self::MethodNotAllowed(methods) = self {
            let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
            headers.insert(ALLOW, HeaderValue::from_str(&names.join(", ")).expect("method names are tokens"));
        } else if status == StatusCode::UPGRADE_REQUIRED {
            // RFC 9110, section 7.8: a sender of Upgrade lists it as a connection option.
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        } else if status == StatusCode::REQUEST_TIMEOUT {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
