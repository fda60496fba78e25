//! What the gateway has decided about a request that is to be forwarded.

use std::sync::atomic::AtomicU32;

use http::header::{HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use ipnet::IpNet;

use crate::body::BodyGuard;
use crate::config::Route;
use crate::listener::{ForwardedClient, Interim};
use crate::telemetry::RequestTrace;

/// What is settled about a request when it is forwarded.
pub struct ForwardContext<'a> {
    /// The route's settings.
    pub route: &'a Route,
    /// The upstream: an index in [`crate::config::Config::upstreams`].
    pub upstream: usize,
    /// The client's end of its connection.
    pub client: &'a ForwardedClient,
    /// The host (and port) that the client asked for.
    pub authority: &'a str,
    /// Path and query where they are not the client's own.
    pub target: Option<&'a PathAndQuery>,
    /// The id of the request, for `X-Request-Id`.
    pub request_id: &'a HeaderValue,
    /// Headers that name the principal.
    pub identity: &'a [(HeaderName, HeaderValue)],
    /// Networks whose forwarding headers are trusted.
    pub trusted_proxies: &'a [IpNet],
    /// Passes interim answers on; `None` when the client can't receive any.
    pub interim: Option<Interim>,
    /// Makes what the request's body keeps alive: it may outlive the answer.
    pub hold: &'a (dyn Fn() -> BodyGuard + Sync),
    /// Attempts by now.
    pub attempts: AtomicU32,
    /// Where requests are traced.
    pub trace: Option<&'a RequestTrace>,
}
