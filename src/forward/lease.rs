//! What an answer holds on to until its last byte: a connection, the places of its request, and what is to be said of its endpoint.

use std::sync::Arc;

use http::StatusCode;

use crate::body::{BodyError, Progress};

use super::balance::{InFlight, Place};
use super::open::Open;
use super::pool;
use super::upstream::UpstreamPools;

/// A connection in use, and the places that its request takes. Dropped, an HTTP/1.1 connection is closed; released, it waits for
/// its next request.
pub struct Lease {
    connection: pool::Lease,
    _in_flight: InFlight,
    _place: Place,
    upstream: Arc<UpstreamPools>,
    /// Of the endpoint.
    index: usize,
    /// How the request's body goes, whose end may be the reason for that of the answer.
    upload: Option<Arc<Progress>>,
    verdict: Verdict,
}

/// What a call takes of its upstream; dropped, it is free again.
pub struct CallPermits {
    _open: Option<Open>,
    _in_flight: InFlight,
    _place: Place,
}

/// What is known of the endpoint by this answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Its status speaks against it.
    Bad,
    /// That it is good will be known at its end.
    Open,
    /// It is good, as events or a call begin: its end is far, and silence says nothing.
    Stream,
}

impl Lease {
    pub(super) fn new(
        (connection, in_flight, status): (pool::Lease, InFlight, StatusCode),
        place: Place,
        upstream: Arc<UpstreamPools>,
        index: usize,
        upload: Option<Arc<Progress>>,
    ) -> Self {
        let verdict = if gateway_error(status).is_some() { Verdict::Bad } else { Verdict::Open };
        Self { connection, _in_flight: in_flight, _place: place, upstream, index, upload, verdict }
    }

    /// Who is at the other end.
    pub(super) fn endpoint(&self) -> Arc<str> {
        self.connection.endpoint()
    }

    /// The answer is a call or a stream of events, that may last: the endpoint has done well by it already.
    pub(super) fn begins_stream(&mut self) {
        if self.verdict == Verdict::Open {
            self.verdict = Verdict::Stream;
            self.upstream.roster.succeeded(self.index);
        }
    }

    /// The exchange is over, request and response: the connection may carry the next.
    pub fn release(self) {
        if self.verdict == Verdict::Open {
            self.upstream.roster.succeeded(self.index);
        }
        self.connection.release();
    }

    /// The connection has become a call, and can't be used again.
    #[must_use]
    pub fn into_call(self) -> CallPermits {
        CallPermits { _open: self.connection.into_open(), _in_flight: self._in_flight, _place: self._place }
    }

    /// The answer ended too early. Only what the endpoint has done is its failure: neither what the client did, nor a deadline that
    /// the client's reading counts in.
    pub fn broke_off(self, error: &BodyError) {
        let theirs = match error {
            BodyError::Broken(_) | BodyError::Unfinished => {
                self.upload.as_ref().is_none_or(|upload| upload.fault().is_none())
            }
            BodyError::Stalled(_) => self.verdict != Verdict::Stream,
            // What a client sends is reset, never an answer.
            BodyError::Reset(_) | BodyError::TooLarge(_) | BodyError::Late(_) | BodyError::Revoked(_) => false,
        };
        if theirs {
            self.upstream.metrics.bad_answers.inc();
            if self.verdict != Verdict::Bad {
                self.upstream.roster.failed(self.index, "answer");
            }
        }
    }
}

/// What a gateway says for want of a service behind it; nothing else counts against an endpoint, 429, 401 or 500 don't.
pub(super) fn gateway_error(status: StatusCode) -> Option<&'static str> {
    match status {
        StatusCode::BAD_GATEWAY => Some("502"),
        StatusCode::SERVICE_UNAVAILABLE => Some("503"),
        StatusCode::GATEWAY_TIMEOUT => Some("504"),
        _ => None,
    }
}
