//! What an answer holds until its last byte: a connection, the permits of its request, and a verdict on its endpoint.

use std::sync::Arc;

use http::StatusCode;

use crate::body::{BodyError, Progress};

use super::balance::{InFlight, Permit};
use super::endpoint_pool::PooledConnection;
use super::upstream_pools::UpstreamPools;

/// A connection in use, and the permits of its request. Dropped, an HTTP/1.1 connection is closed; released, it waits for its next
/// request.
pub struct ResponseGuard {
    connection: PooledConnection,
    in_flight: InFlight,
    permit: Permit,
    upstream: Arc<UpstreamPools>,
    /// Of the endpoint.
    index: usize,
    /// The request's body: its end may be why the answer ended.
    upload: Option<Arc<Progress>>,
    verdict: EndpointVerdict,
}

/// What the answer says of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndpointVerdict {
    /// Its status counts as a failure.
    Failed,
    /// Known at the answer's end.
    Pending,
    /// Good already: events or a call begin. The end is far away, and silence is normal.
    Streaming,
}

impl ResponseGuard {
    pub(super) fn new(
        (connection, in_flight, status): (PooledConnection, InFlight, StatusCode),
        permit: Permit,
        upstream: Arc<UpstreamPools>,
        index: usize,
        upload: Option<Arc<Progress>>,
    ) -> Self {
        let verdict = if gateway_error(status).is_some() { EndpointVerdict::Failed } else { EndpointVerdict::Pending };
        Self { connection, in_flight, permit, upstream, index, upload, verdict }
    }

    /// The endpoint's name in logs.
    pub(super) fn endpoint(&self) -> Arc<str> {
        self.connection.pool.label.clone()
    }

    /// The answer is a call or a stream of events, which may last: that is a success of the endpoint already. Returns whether one more
    /// may hold a connection.
    pub(super) fn begin_stream(&mut self) -> bool {
        if self.verdict == EndpointVerdict::Pending {
            self.verdict = EndpointVerdict::Streaming;
            self.upstream.state.succeeded(self.index);
        }
        self.connection.try_begin_call()
    }

    /// Request and response are complete: the connection may carry the next.
    pub fn release(self) {
        if self.verdict == EndpointVerdict::Pending {
            self.upstream.state.succeeded(self.index);
        }
        self.connection.release();
    }

    /// The connection has become a call, and can't be used again. Returns what the call takes of the upstream's capacity until it is
    /// dropped.
    #[must_use]
    pub fn into_call(self) -> impl Send {
        (self.connection.into_slot(), self.in_flight, self.permit)
    }

    /// The answer ended too early. It is the endpoint's failure unless the client's body broke off, or a deadline passed in which
    /// the client had to read.
    pub fn broke_off(self, error: &BodyError) {
        let is_endpoints_fault = match error {
            BodyError::Broken(_) | BodyError::Unfinished => {
                self.upload.as_ref().is_none_or(|upload| upload.fault().is_none())
            }
            BodyError::Stalled(_) => self.verdict != EndpointVerdict::Streaming,
            // Clients reset requests; answers are never reset so.
            BodyError::Reset(_)
            | BodyError::Incomplete
            | BodyError::TooLarge(_)
            | BodyError::TooSlow
            | BodyError::Late(_)
            | BodyError::Revoked(_)
            | BodyError::Closed(_)
            | BodyError::Ended => false,
        };
        if is_endpoints_fault {
            self.upstream.metrics.bad_answers.inc();
            if self.verdict != EndpointVerdict::Failed {
                self.upstream.state.failed(self.index, "answer");
            }
        }
    }
}

/// The statuses by which a gateway reports that the service behind it failed; 429, 401 or 500 don't count against an endpoint.
pub(super) fn gateway_error(status: StatusCode) -> Option<&'static str> {
    match status {
        StatusCode::BAD_GATEWAY => Some("502"),
        StatusCode::SERVICE_UNAVAILABLE => Some("503"),
        StatusCode::GATEWAY_TIMEOUT => Some("504"),
        _ => None,
    }
}
