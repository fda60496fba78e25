//! Why a request was not authenticated: what the client may know, and a finer reason for metrics and logs alone.

use std::sync::Arc;

/// A request that was not authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// Id and name of its token, if there is a record of it: for logs, never for clients.
    pub token: Option<(Arc<str>, Arc<str>)>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, token: None }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        refused.refusal
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::Invalid(reason)
    }
}

impl Refused {
    /// No record has the token's hash.
    pub(super) const UNKNOWN: Self = Self { refusal: Refusal::Invalid(Reason::Unknown), token: None };

    /// Whether the token itself is no good.
    pub(super) fn is_invalid(&self) -> bool {
        matches!(self.refusal, Refusal::Invalid(_))
    }
}

/// Why a request was not authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no Bearer token: no `Authorization`, or one of another scheme.
    #[error("no Bearer token")]
    Missing,
    /// There is more than one `Authorization` line.
    #[error("more than one Authorization header")]
    Repeated,
    /// The token is no good; clients are not told why.
    #[error("the token is not valid: {}", .0.as_str())]
    Invalid(Reason),
    /// So many authentications have failed from this network that the token is not looked at.
    #[error("too many failed authentications")]
    TooManyFailures {
        /// Seconds until the network may fail again, at least 1.
        retry_after_s: u32,
    },
    /// So many unknown tokens are looked up that this one has to wait.
    #[error("too many unknown tokens are looked up")]
    LookupsExhausted,
    /// The store does not answer and the token is not known here, or its record can't be read.
    #[error("the token can't be looked up at the moment")]
    Unavailable,
}

/// Why a token is no good: for metrics and logs, never for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Not in the syntax of Bearer tokens, or an own token whose checksum fails.
    Malformed,
    /// No record has its hash.
    Unknown,
    /// Its time is over.
    Expired,
    /// Its record is switched off.
    Disabled,
    /// It was revoked.
    Revoked,
}

impl Reason {
    /// The reason as a metric label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
        }
    }
}

impl Refusal {
    /// The refusal as a metric label, one of [`OUTCOMES`].
    pub(crate) fn outcome(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Repeated => "repeated",
            Self::Invalid(reason) => reason.as_str(),
            Self::TooManyFailures { .. } => "too_many_failures",
            Self::LookupsExhausted => "crowded",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Every value of `callgate_auth_total{outcome}`; the first stands for a good token.
pub const OUTCOMES: [&str; 11] = [
    "ok",
    "missing",
    "repeated",
    "malformed",
    "unknown",
    "expired",
    "disabled",
    "revoked",
    "too_many_failures",
    "crowded",
    "unavailable",
];
