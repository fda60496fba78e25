//! What can go wrong on the way to an upstream and back.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::balance::NoPermit;

/// Why there is no answer from the upstream.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// No endpoint could be connected to.
    #[error("can't connect to {endpoint}")]
    Connect {
        /// The last one tried.
        endpoint: Arc<str>,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The upstream has as many requests, or connections, as allowed, and the request can't wait, or not longer.
    #[error("{upstream} has as many {what} as allowed (max_{what}), and {why}")]
    Overloaded {
        /// Which.
        upstream: Arc<str>,
        /// `requests` or `connections`.
        what: &'static str,
        /// Why the request does not wait.
        why: NoPermit,
    },
    /// The connection broke off, or what came on it is no HTTP.
    #[error("the exchange with {endpoint} broke off")]
    Broken {
        /// Which.
        endpoint: Arc<str>,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The endpoint switched protocols although the request did not ask for it.
    #[error("{0} switched protocols unasked")]
    UnaskedUpgrade(Arc<str>),
    /// An HTTP/2 client asked for a WebSocket, and would take this answer for an open one.
    #[error("{0} neither opened a WebSocket nor refused to")]
    NoWebSocket(Arc<str>),
    /// The answer has `Content-Length` and is chunked: another reader may end it elsewhere (RFC 9112 §6.3).
    #[error("the answer of {0} has two lengths")]
    TwoLengths(Arc<str>),
    /// The response did not come in time.
    #[error("{endpoint} did not answer within {after:?}")]
    Timeout {
        /// Which.
        endpoint: Arc<str>,
        /// The deadline.
        after: Duration,
    },
    /// The client's body is longer than the route allows.
    #[error("the request body is too large")]
    TooLarge,
    /// The client's body made no progress.
    #[error("the request body stalled")]
    Stalled,
    /// The client's body broke off, or violated its framing.
    #[error("the request body broke off")]
    ClientGone,
}
