//! Why a request to the admin listener fails. The only file here that knows which error has which status.

use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};
use serde_json::json;

use super::access::AccessDenied;
use super::invalid::{InvalidFields, sentence};
use super::response::{AdminResponse, etag, json_response, set_header};
use crate::config::{self, Problem, Role};
use crate::store::StoreError;
use crate::tokens::RegistryError;

/// Seconds until a store that gives no answer may be asked again.
const RETRY_AFTER_S: u64 = 1;
const CHALLENGE: &str = r#"Bearer realm="callgate-admin""#;

/// Why a request fails. The messages are sentences for the caller.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// The caller is not known.
    #[error(transparent)]
    Denied(AccessDenied),
    /// A page of another origin, or a host name that is not this machine's.
    #[error("{0}")]
    Foreign(&'static str),
    #[error("This request needs the role {}: use an admin token that has it, or set admin.anonymous.", .0.as_str())]
    Role(Role),
    /// Nothing has this path, or no token this id.
    #[error("{0}")]
    NotFound(String),
    /// The path takes these methods.
    #[error("Use one of {0}.")]
    Method(String),
    /// The request can't be read.
    #[error("{0}")]
    Malformed(String),
    #[error("The body did not arrive in time.")]
    BodyTimeout,
    #[error("The body may have at most {0} bytes.")]
    TooLarge(usize),
    #[error("The body must be JSON in UTF-8, sent with Content-Type: application/json.")]
    MediaType,
    #[error("{}", .0.summary())]
    Invalid(InvalidFields),
    /// The configuration was read again and refused.
    #[error("The configuration was refused; the one before stays in force.")]
    Configuration(Vec<Problem>),
    /// The state of the token forbids it; with a code.
    #[error("{0}")]
    Conflict(String, &'static str),
    /// The idempotency key made another token before.
    #[error("{0}")]
    KeyReused(String),
    /// The change lacks `If-Match`.
    #[error("Send the ETag of the token that you change as If-Match, so that no other change is lost.")]
    Unconditional,
    /// The token has this version now, if it is known, and not the one of `If-Match`.
    #[error("The token does not have the version in If-Match: read it again.")]
    Stale(Option<u64>),
    /// As many listen to events as may.
    #[error("Too many listen to events already: close another page, or try again.")]
    TooManyListeners,
    /// The store gives no answer.
    #[error("{0}")]
    Unavailable(String),
}

impl ApiError {
    pub(super) fn into_response(self, request_id: &HeaderValue) -> AdminResponse {
        let (status, code) = self.status();
        let id = request_id.to_str().unwrap_or_default();
        let mut body = json!({ "message": self.to_string(), "code": code, "request_id": id });
        if let Self::Invalid(invalid) = &self {
            body["errors"] = json!(invalid);
        }
        if let Self::Configuration(problems) = &self {
            [body["errors"], body["warnings"]] = config::parted_json(problems);
        }
        let mut response = json_response(status, &body);
        if let Some((name, value)) = self.header(code) {
            set_header(&mut response, name, value);
        }
        response
    }

    /// The status, and the code for programs.
    fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Denied(AccessDenied::Missing | AccessDenied::UnknownCertificate) => {
                (StatusCode::UNAUTHORIZED, "unauthenticated")
            }
            Self::Denied(AccessDenied::Invalid) => (StatusCode::UNAUTHORIZED, "invalid_token"),
            Self::Denied(AccessDenied::Repeated) => (StatusCode::BAD_REQUEST, "invalid_request"),
            Self::Denied(AccessDenied::TooManyFailures(_)) => (StatusCode::TOO_MANY_REQUESTS, "too_many_failures"),
            Self::Foreign(_) => (StatusCode::FORBIDDEN, "forbidden"),
            Self::Role(_) => (StatusCode::FORBIDDEN, "insufficient_role"),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            Self::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "malformed"),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "too_slow"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Self::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            Self::Configuration(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_configuration"),
            Self::Conflict(_, code) => (StatusCode::CONFLICT, code),
            Self::KeyReused(_) => (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused"),
            Self::Unconditional => (StatusCode::PRECONDITION_REQUIRED, "precondition_required"),
            Self::Stale(_) => (StatusCode::PRECONDITION_FAILED, "version_mismatch"),
            Self::TooManyListeners => (StatusCode::SERVICE_UNAVAILABLE, "too_many_listeners"),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        }
    }

    /// The header that the status calls for.
    fn header(&self, code: &str) -> Option<(HeaderName, String)> {
        Some(match self {
            Self::Denied(AccessDenied::Missing | AccessDenied::UnknownCertificate) => {
                (header::WWW_AUTHENTICATE, CHALLENGE.to_owned())
            }
            Self::Denied(AccessDenied::Invalid | AccessDenied::Repeated) => {
                (header::WWW_AUTHENTICATE, format!(r#"{CHALLENGE}, error="{code}""#))
            }
            Self::Denied(AccessDenied::TooManyFailures(seconds)) => (header::RETRY_AFTER, seconds.to_string()),
            Self::Unavailable(_) | Self::TooManyListeners => (header::RETRY_AFTER, RETRY_AFTER_S.to_string()),
            Self::Method(allow) => (header::ALLOW, allow.clone()),
            Self::BodyTimeout => (header::CONNECTION, "close".to_owned()),
            Self::MediaType => (header::ACCEPT, "application/json".to_owned()),
            Self::Stale(version) => (header::ETAG, etag((*version)?)),
            Self::Foreign(_) | Self::Role(_) | Self::NotFound(_) | Self::Malformed(_) | Self::TooLarge(_) => {
                return None;
            }
            Self::Configuration(_)
            | Self::Invalid(_)
            | Self::Conflict(..)
            | Self::KeyReused(_)
            | Self::Unconditional => return None,
        })
    }
}

impl From<InvalidFields> for ApiError {
    fn from(invalid: InvalidFields) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "a request to the admin API needs Redis");
        Self::Unavailable("Redis does not answer, so the other instances can't be asked.".to_owned())
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
            RegistryError::Unknown { .. } | RegistryError::Lost { .. } | RegistryError::Evicted { .. } => {
                Self::NotFound(message)
            }
            RegistryError::Stale { version, .. } => Self::Stale(Some(version)),
            RegistryError::KeyUsed(_) => Self::KeyReused(message),
            RegistryError::Exists(_) => Self::Conflict(message, "exists"),
            RegistryError::Revoked(_) => Self::Conflict(message, "revoked"),
            RegistryError::NoSecret(_) => Self::Conflict(message, "not_rotatable"),
            RegistryError::Contended(_) => Self::Conflict(message, "contended"),
            RegistryError::Locked(_) => {
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
