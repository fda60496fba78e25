//! Why a request is not answered as asked, with a message for the client and the status that goes with it.

use std::collections::BTreeMap;

use http::header::{ALLOW, CONNECTION, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderValue, Method, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::answer::{Answer, json_answer};
use super::intake::MAX_JSON;

/// What is wrong with which field, for people.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct FieldErrors(BTreeMap<&'static str, Vec<String>>);

impl FieldErrors {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// With one entry.
    pub(super) fn of(field: &'static str, message: impl Into<String>) -> Self {
        let mut errors = Self::new();
        errors.add(field, message.into());
        errors
    }

    pub(super) fn add(&mut self, field: &'static str, message: String) {
        self.0.entry(field).or_default().push(message);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Why a request is not answered as asked; the text of each is what the client reads.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("There is nothing at this path.")]
    NoSuchPath,
    #[error("There is no such call.")]
    NoSuchCall,
    #[error("This method is not allowed here; see the Allow header.")]
    Method(&'static [Method]),
    #[error("The request body must be JSON: send it with Content-Type: application/json.")]
    NotDeclaredJson,
    #[error("The request body is not a JSON object.")]
    NotJson,
    #[error("The request body must not be larger than {} bytes.", MAX_JSON)]
    TooLarge,
    #[error("The request body did not arrive in time.")]
    Slow,
    #[error("The request body broke off.")]
    BrokenBody,
    #[error("The given data was invalid.")]
    Invalid(FieldErrors),
    #[error("The call has ended.")]
    CallEnded,
    #[error("This is a WebSocket: connect with the Upgrade it asks for.")]
    NotAnUpgrade,
    #[error("The WebSocket version must be 13.")]
    WebSocketVersion,
    #[error("The Sec-WebSocket-Key is missing or malformed.")]
    WebSocketKey,
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchPath | Self::NoSuchCall => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotDeclaredJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotJson | Self::BrokenBody | Self::WebSocketKey => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::CallEnded => StatusCode::CONFLICT,
            Self::NotAnUpgrade | Self::WebSocketVersion => StatusCode::UPGRADE_REQUIRED,
        }
    }

    /// The answer that tells it.
    pub(super) fn answer(&self) -> Answer {
        let message = self.to_string();
        let body = match self {
            Self::Invalid(errors) => json!({ "message": message, "errors": errors }),
            _ => json!({ "message": message }),
        };
        let mut answer = json_answer(self.status(), &body);
        let headers = answer.headers_mut();
        match self {
            Self::Method(allowed) => {
                let names: Vec<&str> = allowed.iter().map(Method::as_str).collect();
                let names = HeaderValue::from_str(&names.join(", ")).expect("method names are tokens");
                headers.insert(ALLOW, names);
            }
            Self::NotAnUpgrade | Self::WebSocketVersion => {
                // RFC 9110, section 7.8: who sends Upgrade lists it as a connection option.
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            Self::Slow => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::NoSuchPath
            | Self::NoSuchCall
            | Self::NotDeclaredJson
            | Self::NotJson
            | Self::TooLarge
            | Self::BrokenBody
            | Self::Invalid(_)
            | Self::CallEnded
            | Self::WebSocketKey => {}
        }
        answer
    }
}
