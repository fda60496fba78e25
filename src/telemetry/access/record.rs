//! What the access log says of one request.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderValue, Method, StatusCode, Uri, Version};

/// A timed part of a request's life.
#[derive(Debug, Clone, Copy)]
pub enum Phase {
    /// Authentication.
    Auth,
    /// The decision of the limiter.
    Decision,
    /// From sending the request to the upstream to the head of its response.
    Upstream,
}

/// One window of a decision.
#[derive(Debug, Clone)]
pub struct WindowUse<'a> {
    /// The name of the limit.
    pub name: &'a str,
    /// Requests counted.
    pub used: u32,
    /// Requests allowed.
    pub limit: u32,
}

/// What is known of one request when it ends.
#[derive(Debug)]
pub struct AccessRecord {
    /// When its head was complete.
    pub started: Instant,
    /// The same on the wall clock.
    pub received: SystemTime,
    /// The client's address; behind trusted proxies, the address that they report.
    pub client: IpAddr,
    /// A hyphen for what was not a valid request.
    pub method: Method,
    /// Only its path is logged.
    pub uri: Uri,
    /// The client's version of HTTP.
    pub version: Version,
    /// Also sent in the response and to the upstream.
    pub request_id: HeaderValue,
    /// The id of its trace: the client's, or a new one where requests are traced.
    pub trace_id: Option<u128>,
    /// Host and port as the client gave them; empty if it gave none.
    pub host: Box<str>,
    /// The client's `User-Agent`.
    pub user_agent: Option<HeaderValue>,
    /// The name of the route.
    pub route: Option<Arc<str>>,
    /// Id and name of the token.
    pub token: Option<(Arc<str>, Arc<str>)>,
    /// The account of the token.
    pub account: Option<Arc<str>>,
    /// 499 when the client disconnected before the response.
    pub status: StatusCode,
    /// The code of a rejection.
    pub rejection: Option<&'static str>,
    /// Why a request was not authenticated; never sent to clients.
    pub reason: Option<&'static str>,
    /// What failed; never sent to clients.
    pub error: Option<Box<str>>,
    /// The name of the upstream.
    pub upstream: Option<Arc<str>>,
    /// The endpoint that responded.
    pub endpoint: Option<Arc<str>>,
    /// The first attempt at an upstream, and one for each retry.
    pub attempts: u32,
    /// The source of the decision.
    pub decided_by: Option<&'static str>,
    /// Denied by its limits, but forwarded because the plan has `shadow: true`.
    pub shadow_denied: bool,
    /// Indexed by [`Phase`].
    pub phases: [Option<Duration>; 3],
    /// Bytes of the response's body; of a call: from the upstream.
    pub bytes_out: u64,
    /// Bytes of a call from the client.
    pub bytes_in: u64,
    /// Messages of a call from the client and from the upstream.
    pub messages: Option<[u64; 2]>,
    /// Whether the client or the upstream disconnected before the end of the response.
    pub cut: bool,
    /// Which side ended a call or a stream: `client`, `upstream` or `gateway`.
    pub ended_by: Option<&'static str>,
}

impl AccessRecord {
    /// Whether nothing went wrong, and it was no call.
    pub(super) fn is_unremarkable(&self) -> bool {
        self.status.as_u16() < 400
            && self.status != StatusCode::SWITCHING_PROTOCOLS
            && !self.cut
            && !self.shadow_denied
            && self.error.is_none()
            && self.ended_by.is_none()
            && self.rejection.is_none()
    }

    pub(crate) fn phase(&mut self, phase: Phase, took: Duration) {
        self.phases[phase as usize] = Some(took);
    }
}
