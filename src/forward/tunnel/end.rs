//! How a call ends: by which side, why, and with which Close frames.

use std::borrow::Cow;
use std::io;

/// The side that ended a call: it closed first, or its connection broke.
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
    /// For logs and labels.
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
    /// One side did not switch protocols.
    #[error("the call never began")]
    Upgrade(#[source] io::Error),
    /// Nothing was sent for `call.idle_timeout`.
    #[error("the call was silent for too long")]
    Idle,
    /// A side sent nothing for `call.ping_timeout` after a ping.
    #[error("the {} did not answer a ping", .0.as_str())]
    Unanswered(EndedBy),
    /// It reached `call.max_duration`.
    #[error("the call reached its maximum duration")]
    TooLong,
    /// The instance ended.
    #[error("the instance ended")]
    Ended,
    /// The token no longer allows it; why, for the log alone.
    #[error("{0}")]
    Revoked(&'static str),
    /// An operator closed it; the reason is for both sides.
    #[error("an operator closed it: {0}")]
    Closed(Box<str>),
}

/// How a call ended.
#[derive(Debug)]
pub struct TunnelEnd {
    /// Bytes from the client and from the upstream, including frame headers. Callgate's own frames, and answers to them, are not
    /// counted.
    pub bytes: [u64; 2],
    /// Complete messages, texts and binary ones, of however many frames.
    pub messages: [u64; 2],
    /// Which side ended it.
    pub by: EndedBy,
    /// Why it did not end by itself.
    pub cut: Option<CutReason>,
}

/// The Close frames for both sides: status codes (RFC 6455 §7.4.1 and IANA's registry) and a reason.
pub(super) struct CloseFrames {
    pub(super) to_client: u16,
    pub(super) to_upstream: u16,
    pub(super) reason: Cow<'static, str>,
}

impl CloseFrames {
    const fn new(to_client: u16, to_upstream: u16, reason: &'static str) -> Self {
        Self { to_client, to_upstream, reason: Cow::Borrowed(reason) }
    }

    /// For when this side's connection is gone. For a client 1014, "bad gateway", would be more exact than 1011, "unexpected condition",
    /// but some common libraries reject it as a protocol error.
    pub(super) const fn without(gone: EndedBy) -> Self {
        match gone {
            EndedBy::Client => Self::new(1001, 1001, "the client is gone"),
            EndedBy::Upstream | EndedBy::Gateway => Self::new(1011, 1001, "the service is gone"),
        }
    }
}

impl CutReason {
    /// `None` where no side is left, or the one that is has got its frame.
    pub(super) fn close_frames(&self) -> Option<CloseFrames> {
        Some(match self {
            Self::Broken(_) | Self::Unannounced | Self::Upgrade(_) => return None,
            Self::Idle => CloseFrames::new(1001, 1001, "silent for too long"),
            Self::Unanswered(EndedBy::Client) => CloseFrames::new(1001, 1001, "the client does not answer"),
            Self::Unanswered(EndedBy::Upstream | EndedBy::Gateway) => {
                CloseFrames::new(1011, 1001, "the service does not answer")
            }
            Self::TooLong => CloseFrames::new(1000, 1000, "longest duration reached"),
            // Only servers may send 1012, "service restart"; both sides may send 1001, "going away".
            Self::Ended => CloseFrames::new(1012, 1001, "the gateway restarts"),
            Self::Revoked(_) => CloseFrames::new(1008, 1008, "the token no longer allows this call"),
            Self::Closed(reason) => {
                CloseFrames { to_client: 1008, to_upstream: 1008, reason: Cow::Owned(reason.to_string()) }
            }
        })
    }
}
