//! What can go wrong on the way to an upstream and back.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::body::BodyFault;

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
    /// The upstream has as many requests, connections or calls as allowed, and the request can't wait, or not longer.
    #[error("{upstream} has as many {what} as allowed (max_{what}), and {why}")]
    Overloaded {
        /// Which.
        upstream: Arc<str>,
        /// `requests`, `connections` or `calls`.
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
    /// The client would misread the answer.
    #[error("{endpoint} {why}")]
    BadAnswer {
        /// Which.
        endpoint: Arc<str>,
        /// What it did.
        why: &'static str,
    },
    /// The response did not come in time.
    #[error("{endpoint} did not answer within {after:?}")]
    Timeout {
        /// Which.
        endpoint: Arc<str>,
        /// The deadline.
        after: Duration,
    },
    /// The client's body broke off.
    #[error(transparent)]
    Body(BodyFault),
}
