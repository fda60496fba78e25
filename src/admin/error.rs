//! Why a request to the admin listener fails. The only file here that knows which error has which status.

use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};
use serde_json::json;

use super::access::AccessDenied;
use super::invalid::{InvalidFields, sentence};
use super::limit_service::LimitServiceError;
use super::response::{AdminResponse, etag, json_response, set_header};
use crate::config::Role;
use crate::tokens::{EditError, RegistryError};

/// Seconds until a store that gives no answer may be asked again.
const RETRY_AFTER_S: u64 = 1;
const CHALLENGE: &str = r#"Bearer realm="callgate-admin""#;

/// Why a request fails. Texts are sentences for the caller.
#[derive(Debug)]
pub(super) enum ApiError {
    /// The caller is not known.
    Denied(AccessDenied),
    /// A page of another origin, or a host name that is not this machine's.
    Foreign(&'static str),
    /// The caller needs this role.
    Role(Role),
    /// Nothing has this path, or no token this id.
    NotFound(String),
    /// The path takes these methods.
    Method(String),
    /// The request can't be read.
    Malformed(String),
    BodyTimeout,
    /// The body is larger than this many bytes.
    TooLarge(usize),
    /// The body is not JSON by its headers.
    MediaType,
    Invalid(InvalidFields),
    /// The state of the token forbids it; with a code.
    Conflict(String, &'static str),
    /// The idempotency key made another token before.
    KeyReused(String),
    /// The change lacks `If-Match`.
    Unconditional,
    /// The token has this version now, if it is known, and not the one of `If-Match`.
    Stale(Option<u64>),
    /// The store gives no answer.
    Unavailable(String),
}

/// What a response to a failed request says.
struct ErrorParts {
    status: StatusCode,
    code: &'static str,
    message: String,
    header: Option<(HeaderName, HeaderValue)>,
}

impl ErrorParts {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), header: None }
    }

    /// Values are made here, of digits, method names and quoted numbers.
    fn with(self, name: HeaderName, value: impl TryInto<HeaderValue>) -> Self {
        Self { header: value.try_into().ok().map(|value| (name, value)), ..self }
    }
}

impl ApiError {
    pub(super) fn into_response(self, request_id: &HeaderValue) -> AdminResponse {
        let ErrorParts { status, code, message, header } = self.parts();
        let id = request_id.to_str().unwrap_or_default();
        let mut body = json!({ "message": message, "code": code, "request_id": id });
        if let Self::Invalid(invalid) = &self {
            body["errors"] = json!(invalid);
        }
        let mut response = json_response(status, &body);
        if let Some((name, value)) = header {
            set_header(&mut response, name, value);
        }
        response
    }

    fn parts(&self) -> ErrorParts {
        match self {
            Self::Denied(denied) => denied_parts(*denied),
            Self::Foreign(why) => ErrorParts::new(StatusCode::FORBIDDEN, "forbidden", *why),
            Self::Role(needed) => {
                let message = format!("This request needs an admin token with the role {}.", needed.as_str());
                ErrorParts::new(StatusCode::FORBIDDEN, "insufficient_role", message)
            }
            Self::NotFound(message) => ErrorParts::new(StatusCode::NOT_FOUND, "not_found", message),
            Self::Method(allow) => {
                let message = format!("Use one of {allow}.");
                ErrorParts::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
                    .with(header::ALLOW, allow)
            }
            Self::Malformed(message) => ErrorParts::new(StatusCode::BAD_REQUEST, "malformed", message),
            Self::BodyTimeout => {
                let message = "The body did not arrive in time.";
                ErrorParts::new(StatusCode::REQUEST_TIMEOUT, "too_slow", message).with(header::CONNECTION, "close")
            }
            Self::TooLarge(max_bytes) => {
                let message = format!("The body may have at most {max_bytes} bytes.");
                ErrorParts::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
            }
            Self::MediaType => {
                let message = "The body must be JSON in UTF-8, sent with Content-Type: application/json.";
                ErrorParts::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
                    .with(header::ACCEPT, "application/json")
            }
            Self::Invalid(invalid) => ErrorParts::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", invalid.summary()),
            Self::Conflict(message, code) => ErrorParts::new(StatusCode::CONFLICT, code, message),
            Self::KeyReused(message) => {
                ErrorParts::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", message)
            }
            Self::Unconditional => {
                let message =
                    "Send the ETag of the token that you change as If-Match, so that no other change is lost.";
                ErrorParts::new(StatusCode::PRECONDITION_REQUIRED, "precondition_required", message)
            }
            Self::Stale(version) => {
                let message = "The token does not have the version in If-Match: read it again.";
                let parts = ErrorParts::new(StatusCode::PRECONDITION_FAILED, "version_mismatch", message);
                match version {
                    Some(version) => parts.with(header::ETAG, etag(*version)),
                    None => parts,
                }
            }
            Self::Unavailable(message) => ErrorParts::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
                .with(header::RETRY_AFTER, RETRY_AFTER_S),
        }
    }
}

fn denied_parts(denied: AccessDenied) -> ErrorParts {
    let (status, code, message) = match denied {
        AccessDenied::Missing => {
            let message = "This request needs an admin token: Authorization: Bearer TOKEN.";
            let parts = ErrorParts::new(StatusCode::UNAUTHORIZED, "unauthenticated", message);
            return parts.with(header::WWW_AUTHENTICATE, CHALLENGE);
        }
        AccessDenied::TooManyFailures(seconds) => {
            let message =
                format!("Too many wrong admin tokens came from this address; try again in {seconds} seconds.");
            return ErrorParts::new(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", message)
                .with(header::RETRY_AFTER, seconds);
        }
        AccessDenied::Invalid => (StatusCode::UNAUTHORIZED, "invalid_token", "The admin token is not valid."),
        AccessDenied::Repeated => {
            (StatusCode::BAD_REQUEST, "invalid_request", "Send one Authorization header, not several.")
        }
    };
    ErrorParts::new(status, code, message).with(header::WWW_AUTHENTICATE, format!(r#"{CHALLENGE}, error="{code}""#))
}

impl From<InvalidFields> for ApiError {
    fn from(invalid: InvalidFields) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<LimitServiceError> for ApiError {
    fn from(error: LimitServiceError) -> Self {
        match error {
            LimitServiceError::Registry(error) => error.into(),
            LimitServiceError::Contended(_) => Self::Conflict(sentence(&error.to_string()), "contended"),
            LimitServiceError::Store(error) => RegistryError::from(error).into(),
        }
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        let message = sentence(&error.to_string());
        match error {
            RegistryError::Invalid(errors) => {
                let mut invalid = InvalidFields::default();
                for error in errors {
                    invalid.add(error.field, error.message);
                }
                Self::Invalid(invalid)
            }
            RegistryError::Unknown { .. } => Self::NotFound(message),
            RegistryError::Stale { version, .. } => Self::Stale(Some(version)),
            RegistryError::KeyUsed(_) => Self::KeyReused(message),
            RegistryError::Exists(_) => Self::Conflict(message, "exists"),
            RegistryError::Revoked(_) => Self::Conflict(message, "revoked"),
            RegistryError::NoSecret(_) => Self::Conflict(message, "not_rotatable"),
            RegistryError::Contended(_) => Self::Conflict(message, "contended"),
            RegistryError::File(EditError::Locked(_)) => {
                Self::Unavailable("Another process is writing the token file: try again.".to_owned())
            }
            RegistryError::Partly { .. } | RegistryError::Uncertain { .. } => {
                log(&error);
                Self::Unavailable(message)
            }
            // Paths and what Redis says are for the log.
            RegistryError::File(_) | RegistryError::Redis(_) | RegistryError::Randomness(_) => {
                log(&error);
                Self::Unavailable(
                    "The token store can't be used at the moment: see the log of this instance.".to_owned(),
                )
            }
        }
    }
}

fn log(error: &RegistryError) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::error!(%error, cause, "a request to the admin API failed");
}
