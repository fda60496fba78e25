//! Why a request to the admin listener fails. The only file here that knows which error has which status.

use std::borrow::Cow;

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

impl ApiError {
    pub(super) fn into_response(self, request_id: &HeaderValue) -> AdminResponse {
        let (status, code, message) = self.parts();
        let id = request_id.to_str().unwrap_or_default();
        let mut body = json!({ "message": message, "code": code, "request_id": id });
        if let Self::Invalid(invalid) = &self {
            body["errors"] = json!(invalid);
        }
        let mut response = json_response(status, &body);
        if let Some((name, value)) = self.header(code) {
            set_header(&mut response, name, value);
        }
        response
    }

    /// Status, code for programs, and message for people. Long, because it is one table of all errors.
    fn parts(&self) -> (StatusCode, &'static str, Cow<'_, str>) {
        match self {
            Self::Denied(AccessDenied::Missing) => {
                let message = "This request needs an admin token: Authorization: Bearer TOKEN.";
                (StatusCode::UNAUTHORIZED, "unauthenticated", message.into())
            }
            Self::Denied(AccessDenied::Invalid) => {
                (StatusCode::UNAUTHORIZED, "invalid_token", "The admin token is not valid.".into())
            }
            Self::Denied(AccessDenied::Repeated) => {
                (StatusCode::BAD_REQUEST, "invalid_request", "Send one Authorization header, not several.".into())
            }
            Self::Denied(AccessDenied::TooManyFailures(seconds)) => {
                let message =
                    format!("Too many wrong admin tokens came from this address; try again in {seconds} seconds.");
                (StatusCode::TOO_MANY_REQUESTS, "too_many_failures", message.into())
            }
            Self::Foreign(why) => (StatusCode::FORBIDDEN, "forbidden", (*why).into()),
            Self::Role(needed) => {
                let message = format!("This request needs an admin token with the role {}.", needed.as_str());
                (StatusCode::FORBIDDEN, "insufficient_role", message.into())
            }
            Self::NotFound(message) => (StatusCode::NOT_FOUND, "not_found", message.into()),
            Self::Method(allow) => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", format!("Use one of {allow}.").into())
            }
            Self::Malformed(message) => (StatusCode::BAD_REQUEST, "malformed", message.into()),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "too_slow", "The body did not arrive in time.".into()),
            Self::TooLarge(max_bytes) => {
                let message = format!("The body may have at most {max_bytes} bytes.");
                (StatusCode::PAYLOAD_TOO_LARGE, "too_large", message.into())
            }
            Self::MediaType => {
                let message = "The body must be JSON in UTF-8, sent with Content-Type: application/json.";
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message.into())
            }
            Self::Invalid(invalid) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid", invalid.summary().into()),
            Self::Conflict(message, code) => (StatusCode::CONFLICT, code, message.into()),
            Self::KeyReused(message) => (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", message.into()),
            Self::Unconditional => {
                let message =
                    "Send the ETag of the token that you change as If-Match, so that no other change is lost.";
                (StatusCode::PRECONDITION_REQUIRED, "precondition_required", message.into())
            }
            Self::Stale(_) => {
                let message = "The token does not have the version in If-Match: read it again.";
                (StatusCode::PRECONDITION_FAILED, "version_mismatch", message.into())
            }
            Self::Unavailable(message) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", message.into()),
        }
    }

    /// The header that the status calls for.
    fn header(&self, code: &str) -> Option<(HeaderName, String)> {
        Some(match self {
            Self::Denied(AccessDenied::Missing) => (header::WWW_AUTHENTICATE, CHALLENGE.to_owned()),
            Self::Denied(AccessDenied::Invalid | AccessDenied::Repeated) => {
                (header::WWW_AUTHENTICATE, format!(r#"{CHALLENGE}, error="{code}""#))
            }
            Self::Denied(AccessDenied::TooManyFailures(seconds)) => (header::RETRY_AFTER, seconds.to_string()),
            Self::Unavailable(_) => (header::RETRY_AFTER, RETRY_AFTER_S.to_string()),
            Self::Method(allow) => (header::ALLOW, allow.clone()),
            Self::BodyTimeout => (header::CONNECTION, "close".to_owned()),
            Self::MediaType => (header::ACCEPT, "application/json".to_owned()),
            Self::Stale(version) => (header::ETAG, etag((*version)?)),
            Self::Foreign(_) | Self::Role(_) | Self::NotFound(_) | Self::Malformed(_) | Self::TooLarge(_) => {
                return None;
            }
            Self::Invalid(_) | Self::Conflict(..) | Self::KeyReused(_) | Self::Unconditional => return None,
        })
    }
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
