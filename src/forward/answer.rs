//! The answer of an upstream on its way to the client.

use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};

use crate::body::{Body, IncomingBody, Progress, ServiceBody};
use crate::config::Route;
use crate::deadline::Deadline;

use super::balance::NoPermit;
use super::error::ForwardError;
use super::extended_connect::{Handshake, into_connect_response};
use super::headers;
use super::response_guard::ResponseGuard;
use super::tunnel::{ClientEnd, Tunnel};
use super::upstream_pools::UpstreamPools;

/// An upstream's answer, ready for the client.
pub struct ForwardedResponse {
    /// Status, headers and body.
    pub response: Response<Body>,
    /// To be released when the body has ended well.
    pub guard: ResponseGuard,
    /// The endpoint that answered.
    pub endpoint: Arc<str>,
    /// Whether it may last as long as a call.
    pub is_stream: bool,
    /// The two ends of a call, when the upstream switched protocols.
    pub tunnel: Option<Box<Tunnel>>,
}

/// What is known of a request when its answer comes.
pub(super) struct AwaitedAnswer {
    /// The client's end of the WebSocket that the request asks for.
    pub(super) client_end: Option<ClientEnd>,
    /// The WebSocket began on an HTTP/2 connection.
    pub(super) handshake: Option<Handshake>,
    pub(super) is_grpc: bool,
    /// The request's body, where both directions are silent together.
    pub(super) upload: Option<Arc<Progress>>,
    /// When the answer must be whole, and how long that is.
    pub(super) deadline: Option<(Deadline, Duration)>,
    /// Whether the upstream's own limits are passed on.
    pub(super) keeps_limits: bool,
}

impl AwaitedAnswer {
    /// Whether request and answer may last as long as a call.
    pub(super) fn may_last(&self) -> bool {
        self.client_end.is_some() || self.handshake.is_some() || self.is_grpc
    }

    /// Turns an upstream's answer into one for the client.
    ///
    /// # Errors
    /// When the client would misread it, or when it is a stream and there are as many as allowed.
    pub(super) fn pass_on(
        self,
        mut response: Response<ServiceBody>,
        mut guard: ResponseGuard,
        upstream: &UpstreamPools,
        route: &Route,
    ) -> Result<ForwardedResponse, ForwardError> {
        let endpoint = guard.endpoint();
        if let Some(why) = self.defect(&mut response) {
            upstream.metrics.bad_answers.inc();
            return Err(ForwardError::BadAnswer { endpoint, why });
        }
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let client_end = self.client_end.filter(|_| switched);
        let tunnel = client_end
            .map(|client| Box::new(Tunnel { client, upstream: hyper::upgrade::on(&mut response), limits: route.call }));
        let (mut parts, body) = response.into_parts();
        let body = IncomingBody::Service(body);
        headers::head_onto_client(&mut parts, route, self.keeps_limits);
        let is_stream = switched || self.is_grpc || headers::has_events(&parts.headers);
        if is_stream && !guard.begin_stream() {
            let why = NoPermit::Unannounced;
            return Err(ForwardError::Overloaded { upstream: upstream.config.name.clone(), what: "calls", why });
        }
        // Events come when something happens: they may be silent as long as a call, and last as long.
        let (max_silence, deadline) = match is_stream {
            true if self.is_grpc => (route.call.idle_timeout, self.deadline),
            true => (route.call.idle_timeout, route.call.max_duration.map(|longest| (Deadline::default(), longest))),
            false => (Some(route.idle_timeout.unwrap_or(upstream.config.idle_timeout)), self.deadline),
        };
        let (clean, edits) = (headers::clean_trailers_for_client, &route.response_headers);
        let body = Body::relay(body, max_silence, u64::MAX, clean, edits).until(deadline);
        let body = self.upload.iter().fold(body, Body::beside);
        let mut response = Response::from_parts(parts, body);
        if self.handshake.is_some() && switched {
            into_connect_response(&mut response);
        }
        Ok(ForwardedResponse { response, guard, endpoint, is_stream, tunnel })
    }

    /// Why an answer must not be passed on, if the client would misread it.
    fn defect(&self, response: &mut Response<ServiceBody>) -> Option<&'static str> {
        if let Err(why) = headers::settle_length(response.headers_mut()) {
            return Some(why);
        }
        let (headers, status) = (response.headers(), response.status());
        let switched = status == StatusCode::SWITCHING_PROTOCOLS;
        // To an extended CONNECT every 2xx says that the WebSocket is open.
        let is_unclear = |handshake: &Handshake| match switched {
            true => !handshake.is_accepted(headers),
            false => status.is_success(),
        };
        if switched && !(self.client_end.is_some() && headers::has_websocket(headers)) {
            Some("switched protocols unasked")
        } else if self.handshake.as_ref().is_some_and(is_unclear) {
            Some("neither opened a WebSocket nor refused to")
        } else {
            None
        }
    }
}
