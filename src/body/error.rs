//! Why a body did not reach its end.

use std::time::Duration;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// No frame came for the configured time.
    #[error("the body made no progress for {0:?}")]
    Stalled(Duration),
    /// More bytes came than allowed.
    #[error("the body is longer than {0} bytes")]
    TooLarge(u64),
    /// A client sent it too slowly.
    #[error("the client sent the body too slowly")]
    TooSlow,
    /// It was not whole when it had to be.
    #[error("the answer was not whole within {0:?}")]
    Late(Duration),
    /// The client's token no longer permits it: why, for the log alone.
    #[error("{0}")]
    Revoked(&'static str),
    /// An operator closed the call that it is.
    #[error("an operator closed it: {0}")]
    Closed(Box<str>),
    /// The instance that it passes through ends.
    #[error("the instance ended")]
    Ended,
    /// The connection that it came from failed.
    #[error("the body broke off")]
    Broken(#[source] hyper::Error),
    /// An HTTP/1.1 client closed its connection in the middle, or broke the framing.
    #[error("the client's body broke off, or its framing is broken")]
    Incomplete,
    /// The stream of an HTTP/2 upstream that it came on was reset before its end, as if nothing were amiss.
    #[error("the body broke off: its stream was reset before its end")]
    Unfinished,
    /// The stream of an HTTP/2 client that it came on was reset, or its connection failed.
    #[error("the body broke off")]
    Reset(#[source] h2::Error),
}

/// How the body of a request broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// It made no progress.
    #[error("the request body stalled")]
    Stalled,
    /// It came too slowly (min_upload_rate), or took too long (body_timeout).
    #[error("the request body came too slowly (min_upload_rate, body_timeout)")]
    TooSlow,
    /// It is longer than the route allows.
    #[error("the request body is too large")]
    TooLarge,
    /// It ended too early, or violated its framing.
    #[error("the request body broke off")]
    Broken,
}

impl BodyError {
    pub(super) fn fault(&self) -> BodyFault {
        match self {
            Self::Stalled(_) => BodyFault::Stalled,
            Self::TooSlow => BodyFault::TooSlow,
            Self::TooLarge(_) => BodyFault::TooLarge,
            // What a client sends is not withdrawn and never late, what it is sent is.
            Self::Broken(_)
            | Self::Incomplete
            | Self::Unfinished
            | Self::Reset(_)
            | Self::Revoked(_)
            | Self::Closed(_)
            | Self::Ended
            | Self::Late(_) => BodyFault::Broken,
        }
    }
}
