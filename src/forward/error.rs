//! What can go wrong on the way to an upstream and back.

use std::io;
use std::sync::Arc;
use std::time::Duration;

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
    /// The upstream has as many requests as it may, or connections, and as many wait.
    #[error("{upstream} has as many {what} as it may (max_{what}), and as many wait (max_waiting)")]
    QueueFull {
        /// Which.
        upstream: Arc<str>,
        /// `requests` or `connections`.
        what: &'static str,
    },
    /// The upstream has as many requests as it may, or connections, and had for as long as one may wait.
    #[error("{upstream} had as many {what} as it may (max_{what}) for {after:?}")]
    Waited {
        /// Which.
        upstream: Arc<str>,
        /// `requests` or `connections`.
        what: &'static str,
        /// How long.
        after: Duration,
    },
    /// The upstream broke off, or what it sent is no HTTP.
    #[error("the exchange with {endpoint} broke off")]
    Broken {
        /// Who.
        endpoint: Arc<str>,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The upstream switched protocols although nobody asked for that.
    #[error("{0} switched protocols unasked")]
    Unasked(Arc<str>),
    /// It was asked to open a WebSocket for an HTTP/2 client, and answered what would tell the client that it is open.
    #[error("{0} did not open a WebSocket, and did not refuse to")]
    NoWebSocket(Arc<str>),
    /// The answer is said to have one length and to be in chunks: whoever reads it may end it elsewhere (RFC 9112 §6.3).
    #[error("the answer of {0} has two lengths")]
    TwoLengths(Arc<str>),
    /// The head of the response did not come in time.
    #[error("{endpoint} did not answer within {after:?}")]
    Slow {
        /// Who.
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
    /// The client's body broke off, or broke its framing.
    #[error("the request body broke off")]
    ClientGone,
}
