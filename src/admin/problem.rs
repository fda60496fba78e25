//! Why a request to the admin listener is not answered as it was meant. The only file here that knows which problem has which status.

use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::access::Denied;
use super::answer::{Answer, etag, json};
use super::faults::Faults;
use crate::config::Role;
use crate::tokens::{EditError, RegistryError};

/// After so many seconds a store that gives no answer may be asked again.
const RETRY_SOON: u64 = 1;
const CHALLENGE: &str = r#"Bearer realm="callgate-admin""#;

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
    /// The request can't be read.
    Malformed(String),
    /// The body is not there in time.
    TooSlow,
    /// The body is larger than so many bytes.
    TooLarge(usize),
    /// The body is no JSON by its headers.
    MediaType,
    /// What is asked for is wrong.
    Invalid(Faults),
    /// It can't be done to what is there; the second is a code.
    Conflict(String, &'static str),
    /// The key of this request made something else before.
    KeyReused(String),
    /// The change must say of which version it is.
    Unconditional,
    /// The token has this version now, or none that was asked for.
    Stale(Option<u64>),
    /// The store gives no answer.
    Unavailable(String),
}

/// What an answer's head needs.
struct Told {
    status: StatusCode,
    code: &'static str,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    errors: Option<Value>,
}

impl Told {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), headers: Vec::new(), errors: None }
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
        if let Some(errors) = told.errors {
            body.insert("errors".to_owned(), errors);
        }
        let mut answer = json(told.status, &Value::Object(body));
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
            Self::Malformed(message) => Told::new(StatusCode::BAD_REQUEST, "malformed", message),
            Self::TooSlow => {
                let message = "The body did not come in time.";
                Told::new(StatusCode::REQUEST_TIMEOUT, "too_slow", message).with(header::CONNECTION, "close")
            }
            Self::TooLarge(most) => {
                let message = format!("The body may have at most {most} bytes.");
                Told::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
            }
            Self::MediaType => {
                let message = "The body must be JSON in UTF-8, and say so: Content-Type: application/json.";
                Told::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
                    .with(header::ACCEPT, "application/json")
            }
            Self::Invalid(faults) => Told {
                errors: Some(faults.clone().into_json()),
                ..Told::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", faults.summary())
            },
            Self::Conflict(message, code) => Told::new(StatusCode::CONFLICT, code, message),
            Self::KeyReused(message) => Told::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", message),
            Self::Unconditional => {
                let message =
                    "Send the ETag of the token that you change as If-Match, so that nobody else's change is lost.";
                Told::new(StatusCode::PRECONDITION_REQUIRED, "precondition_required", message)
            }
            Self::Stale(version) => {
                let message = "The token is not of the version in If-Match: look at it again.";
                let told = Told::new(StatusCode::PRECONDITION_FAILED, "version_mismatch", message);
                match version {
                    Some(version) => told.with(header::ETAG, etag(version)),
                    None => told,
                }
            }
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

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        let said = sentence(&error.to_string());
        match error {
            RegistryError::Invalid(all) => {
                let mut faults = Faults::default();
                for fault in all {
                    faults.add(fault.field, fault.message);
                }
                Self::Invalid(faults)
            }
            RegistryError::Unknown { .. } => Self::NotFound(said),
            RegistryError::Stale { version, .. } => Self::Stale(Some(version)),
            RegistryError::KeyUsed(_) => Self::KeyReused(said),
            RegistryError::Exists(_) => Self::Conflict(said, "exists"),
            RegistryError::Revoked(_) => Self::Conflict(said, "revoked"),
            RegistryError::NoSecret(_) => Self::Conflict(said, "not_rotatable"),
            RegistryError::Contended(_) => Self::Conflict(said, "contended"),
            RegistryError::File(EditError::Locked(_)) => {
                Self::Unavailable("Somebody else is writing the token file: try again.".to_owned())
            }
            RegistryError::Partly { .. } | RegistryError::Uncertain { .. } => {
                log(&error);
                Self::Unavailable(said)
            }
            // Paths and what Redis says are for the log.
            RegistryError::File(_) | RegistryError::Redis(_) | RegistryError::Randomness(_) => {
                log(&error);
                Self::Unavailable(
                    "The store of tokens can't be used at the moment: see the log of this instance.".to_owned(),
                )
            }
        }
    }
}

fn log(error: &RegistryError) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::error!(%error, cause, "a request to the admin API failed");
}

/// With a capital and a full stop.
pub(super) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let capital: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{capital}{}.", letters.as_str())
}
