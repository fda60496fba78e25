//! What the admin listener answers: pages, JSON, and why not. The only file here that knows which problem has which status.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::access::Denied;
use crate::config::{REQUEST_ID, Role};

/// After so many seconds a store that gives no answer may be asked again.
const RETRY_SOON: u64 = 1;
const CHALLENGE: &str = r#"Bearer realm="callgate-admin""#;

pub(super) type Answer = Response<Full<Bytes>>;

/// Why a request is not answered as it was meant. Texts are sentences for whoever asked.
#[derive(Debug)]
pub(super) enum Problem {
    /// Nobody knows who asks.
    Denied(Denied),
    /// A page of another origin, or a host name that is not this machine's.
    Foreign(&'static str),
    /// The caller may only look.
    Role(Role),
    /// Nothing has this path, or no token this id.
    NotFound(String),
    /// The path takes other methods: these.
    Method(String),
    /// Others change the token all the time.
    Contended(String),
    /// The store gives no answer.
    Unavailable(String),
}

/// What an answer's head needs.
struct Told {
    status: StatusCode,
    code: &'static str,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Told {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), headers: Vec::new() }
    }

    fn with(mut self, name: HeaderName, value: impl TryInto<HeaderValue>) -> Self {
        // Values are made here, of digits, method names and quoted numbers.
        if let Ok(value) = value.try_into() {
            self.headers.push((name, value));
        }
        self
    }
}

impl Problem {
    pub(super) fn into_answer(self, request_id: &HeaderValue) -> Answer {
        let told = self.told();
        let mut body = Map::new();
        body.insert("message".to_owned(), told.message.into());
        body.insert("code".to_owned(), told.code.into());
        body.insert("request_id".to_owned(), request_id.to_str().unwrap_or_default().into());
        let mut answer = self::json(told.status, &Value::Object(body));
        answer.headers_mut().extend(told.headers);
        answer
    }

    fn told(self) -> Told {
        match self {
            Self::Denied(denied) => denied_told(denied),
            Self::Foreign(why) => Told::new(StatusCode::FORBIDDEN, "forbidden", why),
            Self::Role(needed) => {
                let message = format!("This takes an admin token with the role {}.", needed.as_str());
                Told::new(StatusCode::FORBIDDEN, "insufficient_role", message)
            }
            Self::NotFound(message) => Told::new(StatusCode::NOT_FOUND, "not_found", message),
            Self::Method(allow) => {
                let message = format!("Use one of {allow}.");
                Told::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message).with(header::ALLOW, allow)
            }
            Self::Contended(message) => Told::new(StatusCode::CONFLICT, "contended", message),
            Self::Unavailable(message) => {
                Told::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message).with(header::RETRY_AFTER, RETRY_SOON)
            }
        }
    }
}

fn denied_told(denied: Denied) -> Told {
    let unauthorized = |code, message| Told::new(StatusCode::UNAUTHORIZED, code, message);
    match denied {
        Denied::Missing => unauthorized("unauthenticated", "This takes an admin token: Authorization: Bearer TOKEN.")
            .with(header::WWW_AUTHENTICATE, CHALLENGE),
        Denied::Wrong => unauthorized("invalid_token", "The admin token is not valid.")
            .with(header::WWW_AUTHENTICATE, format!(r#"{CHALLENGE}, error="invalid_token""#)),
        Denied::Repeated => {
            Told::new(StatusCode::BAD_REQUEST, "invalid_request", "Send one Authorization header, not several.")
                .with(header::WWW_AUTHENTICATE, format!(r#"{CHALLENGE}, error="invalid_request""#))
        }
        Denied::TooMany(seconds) => {
            let message =
                format!("Too many admin tokens from this address were wrong; try again in {seconds} seconds.");
            Told::new(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", message).with(header::RETRY_AFTER, seconds)
        }
    }
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    // What is told here has text keys and no numbers that JSON lacks.
    let text = serde_json::to_string(body).unwrap_or_else(|_| json!({}).to_string());
    page(status, "application/json", text + "\n")
}

/// Any other answer.
pub(super) fn page(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Stamps the id of the request that is answered.
pub(super) fn stamp(answer: &mut Answer, request_id: HeaderValue) {
    answer.headers_mut().insert(REQUEST_ID, request_id);
}
