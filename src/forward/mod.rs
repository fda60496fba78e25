//! To the upstream and back: chooses an endpoint, rewrites headers, and streams both bodies.

mod affinity;
mod attempts;
mod balance;
mod client_address;
mod connect;
mod connection_slot;
mod context;
mod endpoint_pool;
mod error;
mod extended_connect;
mod grpc_health;
mod headers;
mod interim;
mod mirror;
mod probe;
mod replayable_head;
mod request_form;
mod resolve;
mod response_guard;
mod shared_connection;
mod tls;
mod tunnel;
mod upstream_pools;
mod wait_queue;

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;

use crate::body::{Body, IncomingBody, Progress};
use crate::config::{self, Protocol};
use crate::deadline::End;
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;
use crate::tls::TlsError;

use attempts::RequestContext;
use extended_connect::{Handshake, into_connect_response};
use mirror::RequestMirror;
use tunnel::ClientEnd;
use upstream_pools::UpstreamPools;

pub use balance::{EndpointReport, UpstreamReport, UpstreamStates};
pub use client_address::client_address;
pub use context::ForwardContext;
pub use error::ForwardError;
pub use extended_connect::extended_connect_to_upgrade;
pub use headers::{asks_for_websocket, is_grpc, is_last_hop};
// For the benchmarks alone.
#[doc(hidden)]
pub use headers::{onto_client, onto_upstream};
pub use resolve::ResolvedNames;
pub use response_guard::ResponseGuard;
pub use tunnel::{CutReason, EndedBy, TransferStats, Tunnel, TunnelEnd};

/// An upstream's answer, ready for the client.
pub struct ForwardedResponse {
    /// Status, headers and body.
    pub response: Response<Body>,
    /// To be released when the body has ended well.
    pub guard: ResponseGuard,
    /// The endpoint that answered.
    pub endpoint: Arc<str>,
    /// The two ends of a call, when the upstream switched protocols.
    pub tunnel: Option<Box<Tunnel>>,
}

/// One worker's connections to every upstream.
pub struct Forwarder {
    upstreams: Vec<Arc<UpstreamPools>>,
    /// By the name of the route.
    mirrors: HashMap<Arc<str>, Arc<RequestMirror>>,
    client_idle: Duration,
}

impl Forwarder {
    /// Makes the pools, without connecting. `shared` is the state of the endpoints, for all workers; the drain waits for copies of
    /// requests.
    ///
    /// # Errors
    /// [`TlsError`] when TLS can't be used as configured.
    pub fn new(
        config: &config::Config,
        names: &ResolvedNames,
        shared: &UpstreamStates,
        metrics: &Metrics,
        shutdown: &Shutdown,
    ) -> Result<Self, TlsError> {
        let upstreams = config
            .upstreams
            .iter()
            .enumerate()
            .map(|(index, upstream)| Ok(Arc::new(UpstreamPools::new(index, upstream, names, shared)?)));
        let upstreams = upstreams.collect::<Result<Vec<_>, TlsError>>()?;
        let mirrors = config.routes.iter().filter_map(|route| {
            let mirror = RequestMirror::new(route, &upstreams, shared, metrics, shutdown)?;
            Some((route.name.clone(), Arc::new(mirror)))
        });
        Ok(Self { mirrors: mirrors.collect(), upstreams, client_idle: config.listen.body_idle_timeout })
    }

    /// Closes connections that were idle too long; to be called every few seconds.
    pub fn sweep(&self) {
        for endpoint in self.upstreams.iter().flat_map(|upstream| &upstream.endpoints) {
            endpoint.sweep();
        }
    }

    /// Checks the health of all endpoints for as long as it is polled. This forwarder should serve nothing else.
    pub async fn check_health(&self) {
        probe::run(&self.upstreams).await;
    }

    /// Sends a request to its route's upstream and waits for the head of the response.
    ///
    /// # Errors
    /// [`ForwardError`]; the client has got no answer then.
    ///
    /// Long, but one thing: request and answer have most variables in common, and an answer that is passed on by value is copied.
    pub async fn forward(
        &self,
        request: Request<IncomingBody>,
        context: &ForwardContext<'_>,
    ) -> Result<ForwardedResponse, ForwardError> {
        let (upstream, route) = (&self.upstreams[context.upstream], context.route);
        let is_http2 = upstream.config.protocol == Protocol::Http2;
        // HTTP/2 has no upgrade, and a request for one may be answered without it (RFC 9110 §7.8).
        let websocket = headers::asks_for_websocket(&request) && !is_http2;
        let is_extended = extended_connect::was_extended_connect(&request);
        let is_grpc = headers::is_grpc(&request);
        let key = affinity::key_of(&upstream.config.balancing.balance, request.headers(), context);
        let (mut request, client_end, progress) = self.prepare(request, context, websocket, is_grpc);
        let handshake = is_extended.then(|| Handshake::start(request.headers_mut()));
        // A gRPC stream is idle when both sides are silent, and may be idle for as long as a call.
        let upload = progress.clone().filter(|_| is_grpc);
        let mut end = route.timeout.filter(|_| !is_grpc).map(End::after);
        let interim = context.interim.as_ref().filter(|_| !is_http2);
        // Requests that may last as long as a call are not mirrored.
        let is_mirrored = route.mirror.is_some() && !websocket && !is_extended && !is_grpc;
        let mirror = if is_mirrored { self.mirrors.get(&route.name) } else { None };
        let copy = mirror.and_then(|mirror| mirror.copy(&mut request, context));
        let answered = {
            let attempts = RequestContext { forward: context, interim, progress, websocket, key, copy };
            let sent = pin!(upstream.send(request, attempts));
            let sent = pin!(async {
                match interim {
                    None => sent.await,
                    Some(interim) => interim.beside(sent).await,
                }
            });
            before(&mut end, sent).await
        };
        let (mut guard, mut response) = answered.unwrap_or_else(|after| Err(upstream.timed_out(after, context)))?;
        let endpoint = guard.endpoint();
        if let Some(why) = defect(&response, websocket, handshake.as_ref()) {
            upstream.metrics.bad_answers.inc();
            return Err(ForwardError::BadAnswer { endpoint, why });
        }
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let tunnel = client_end
            .filter(|_| switched)
            .map(|client| Box::new(Tunnel::new(client, hyper::upgrade::on(&mut response), route.call)));
        let (mut parts, body) = response.into_parts();
        let body = match parts.version {
            Version::HTTP_2 => IncomingBody::Answer(body),
            _ => IncomingBody::Hyper(body),
        };
        headers::head_onto_client(&mut parts, route);
        let is_stream = switched || is_grpc || headers::has_events(&parts.headers);
        if is_stream {
            guard.begin_stream();
        }
        let body = if switched {
            Body::Empty
        } else {
            // Events come when something happens: they may be silent as long as a call.
            let (idle, end) = match is_stream {
                true => (route.call.idle_timeout, None),
                false => (Some(route.idle_timeout.unwrap_or(upstream.config.idle_timeout)), end),
            };
            let edits = &route.response_headers;
            let body = Body::relay(body, idle, u64::MAX, headers::clean_trailers_for_client, edits).until(end);
            upload.iter().fold(body, Body::beside)
        };
        let mut response = Response::from_parts(parts, body);
        if is_extended && switched {
            into_connect_response(&mut response);
        }
        Ok(ForwardedResponse { response, guard, endpoint, tunnel })
    }

    /// Turns the client's request into one to the upstream.
    fn prepare(
        &self,
        mut request: Request<IncomingBody>,
        context: &ForwardContext<'_>,
        websocket: bool,
        is_grpc: bool,
    ) -> (Request<Body>, Option<ClientEnd>, Option<Arc<Progress>>) {
        let client_end = websocket.then(|| ClientEnd::of(&mut request));
        let (mut parts, mut incoming) = request.into_parts();
        if is_grpc {
            incoming.stop_at_once();
        }
        headers::onto_upstream(&mut parts.headers, parts.version, context, websocket);
        parts.version = Version::HTTP_11;
        if let Some(target) = context.target.or(parts.uri.path_and_query()) {
            parts.uri = Uri::from(target.clone());
        }
        // They belong to the client's connection.
        parts.extensions.clear();
        let (limit, edits) = (context.route.max_body, &context.route.request_headers);
        let clean = headers::clean_trailers_for_upstream;
        let idle = if is_grpc { context.route.call.idle_timeout } else { Some(self.client_idle) };
        let mut body = Body::relay(incoming, idle, limit, clean, edits);
        let progress = body.track(context.hold);
        if let Some(progress) = progress.as_ref().filter(|_| is_grpc) {
            body = body.beside(progress);
        }
        (Request::from_parts(parts, body), client_end, progress)
    }
}

/// Waits for an answer, at most until `end`; else returns how long that was.
async fn before<F: Future>(end: &mut Option<End>, mut answer: Pin<&mut F>) -> Result<F::Output, Duration> {
    poll_fn(|cx| match (answer.as_mut().poll(cx), &mut *end) {
        (Poll::Ready(answer), _) => Poll::Ready(Ok(answer)),
        (Poll::Pending, Some(end)) => end.poll(cx).map(Err),
        (Poll::Pending, None) => Poll::Pending,
    })
    .await
}

/// Why an answer must not be passed on, if the client would misread it.
fn defect(response: &Response<Incoming>, websocket: bool, handshake: Option<&Handshake>) -> Option<&'static str> {
    let (headers, status) = (response.headers(), response.status());
    let switched = status == StatusCode::SWITCHING_PROTOCOLS;
    // To an extended CONNECT every 2xx says that the WebSocket is open.
    let is_clear = |handshake: &Handshake| if switched { handshake.is_accepted(headers) } else { !status.is_success() };
    if headers::has_two_lengths(headers) {
        // Another reader may see its end elsewhere (RFC 9112 §6.3).
        Some("sent an answer with two lengths")
    } else if switched && !(websocket && headers::has_websocket(headers)) {
        Some("switched protocols unasked")
    } else if handshake.is_some_and(|handshake| !is_clear(handshake)) {
        Some("neither opened a WebSocket nor refused to")
    } else {
        None
    }
}
