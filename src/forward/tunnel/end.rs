//! Who ends a call and why, and what its sides are told then.

use std::io;

/// Who ended a call: who closed first, or broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// The client.
    Client,
    /// The upstream.
    Upstream,
    /// Callgate.
    Gateway,
}

impl EndedBy {
    /// As a word, for logs and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Gateway => "gateway",
        }
    }

    /// The side at the other end.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Client => Self::Upstream,
            Self::Upstream | Self::Gateway => Self::Client,
        }
    }
}

/// Why a call was cut.
#[derive(Debug, thiserror::Error)]
pub enum CutReason {
    /// One side's connection failed.
    #[error("the call broke off")]
    Broken(#[source] io::Error),
    /// One side's connection ended, and neither had sent a Close frame.
    #[error("the connection ended without a Close frame")]
    Unannounced,
    /// One side never switched.
    #[error("the call never began")]
    Upgrade(#[source] io::Error),
    /// Nothing moved for `call.idle_timeout`.
    #[error("the call was silent for too long")]
    Silent,
    /// A side gave no sign of life for `call.ping_timeout` after a ping.
    #[error("the {} did not answer a ping", .0.as_str())]
    Unanswered(EndedBy),
    /// It reached `call.max_duration`.
    #[error("the call reached its longest duration")]
    TooLong,
    /// The instance ended.
    #[error("the instance ended")]
    Ended,
    /// The token no longer entitles to it: why, for the log alone.
    #[error("{0}")]
    Revoked(&'static str),
}

/// What both sides are told at the end: a status code (RFC 6455 §7.4.1 and IANA's registry) and a reason.
pub(super) struct Close {
    pub(super) to_client: u16,
    pub(super) to_upstream: u16,
    pub(super) reason: &'static str,
}

impl Close {
    const fn new(to_client: u16, to_upstream: u16, reason: &'static str) -> Self {
        Self { to_client, to_upstream, reason }
    }

    /// What is said when this side's connection is gone. 1014, "bad gateway", would say it more exactly to a client than 1011,
    /// "unexpected condition"; but libraries that many use take it for a fault of the protocol.
    pub(super) const fn without(gone: EndedBy) -> Self {
        match gone {
            EndedBy::Client => Self::new(1001, 1001, "the client is gone"),
            EndedBy::Upstream | EndedBy::Gateway => Self::new(1011, 1001, "the service is gone"),
        }
    }
}

impl CutReason {
    /// `None` where nobody is left to tell, or who is has been told.
    pub(super) fn close(&self) -> Option<Close> {
        Some(match self {
            Self::Broken(_) | Self::Unannounced | Self::Upgrade(_) => return None,
            Self::Silent => Close::new(1001, 1001, "silent for too long"),
            Self::Unanswered(EndedBy::Client) => Close::new(1001, 1001, "the client does not answer"),
            Self::Unanswered(EndedBy::Upstream | EndedBy::Gateway) => {
                Close::new(1011, 1001, "the service does not answer")
            }
            Self::TooLong => Close::new(1000, 1000, "longest duration reached"),
            // "Service restart" is for servers to say, "going away" for everybody.
            Self::Ended => Close::new(1012, 1001, "the gateway restarts"),
            Self::Revoked(_) => Close::new(1008, 1008, "the token no longer allows this call"),
        })
    }
}
