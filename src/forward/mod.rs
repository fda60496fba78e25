//! To the upstream and back: chooses an endpoint, rewrites headers, and streams both bodies.

mod acquire;
mod affinity;
mod answer;
mod answer_first;
mod attempts;
mod balance;
mod client_address;
mod connect;
mod connection_slot;
mod context;
mod endpoint_pool;
mod error;
mod exclusive_connection;
mod extended_connect;
mod first_byte;
mod grpc_health;
mod headers;
mod interim;
mod kept_connections;
mod mirror;
mod probe;
mod replayable_head;
mod request_context;
mod request_form;
mod resolve;
mod response_guard;
mod shared_connection;
mod tls;
mod tunnel;
mod upstream_pools;
mod upstreams;
mod wait_queue;

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Uri, Version};

use crate::body::{Body, IncomingBody, Progress};
use crate::config::{self, HeaderCase, Protocol};
use crate::deadline::Deadline;
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

use answer::AwaitedAnswer;
use extended_connect::Handshake;
use mirror::RequestMirror;
use request_context::RequestContext;
use tunnel::ClientEnd;
use upstream_pools::UpstreamPools;

pub use answer::ForwardedResponse;
pub use balance::{EndpointReport, UpstreamReport};
pub use client_address::{came_over_https, client_address};
pub use context::ForwardContext;
pub use error::ForwardError;
pub use extended_connect::extended_connect_to_upgrade;
pub use headers::{asks_for_events, asks_for_websocket, is_grpc, is_last_hop};
// For the benchmarks alone.
#[doc(hidden)]
pub use crate::listener::ForwardedClient;
#[doc(hidden)]
pub use headers::{onto_client, onto_upstream};
pub use probe::HealthChecks;
pub use response_guard::ResponseGuard;
pub use tunnel::{CutReason, EndedBy, Tunnel, TunnelEnd};
pub use upstreams::Upstreams;

/// One worker's connections to every upstream.
pub struct Forwarder {
    upstreams: Vec<Arc<UpstreamPools>>,
    /// By the name of the route.
    mirrors: HashMap<Arc<str>, Arc<RequestMirror>>,
    client_idle: Duration,
    /// Callgate reports no limits, which those of an upstream could contradict.
    keeps_limits: bool,
}

impl Forwarder {
    /// One worker's pools, without connecting. What `before` has of the same upstreams passes over with its connections. The drain
    /// waits for copies of requests.
    pub fn new(
        config: &config::Config,
        shared: &Upstreams,
        metrics: &Metrics,
        shutdown: &Shutdown,
        before: Option<&Self>,
    ) -> Self {
        let upstreams = UpstreamPools::of_all(shared, before.map_or(&[], |before| &before.upstreams));
        let mirrors = config.routes.iter().filter_map(|route| {
            let mirror = RequestMirror::new(route, &upstreams, shared, metrics, shutdown)?;
            Some((route.name.clone(), Arc::new(mirror)))
        });
        Self {
            mirrors: mirrors.collect(),
            upstreams,
            client_idle: config.listen.body_idle_timeout,
            keeps_limits: !config.limits.x_ratelimit && !config.limits.ietf,
        }
    }

    /// Closes idle connections to upstreams that another configuration has changed or left out: nobody sweeps them any longer.
    pub fn retire_missing_from(&self, by: &Self) {
        let gone = self.upstreams.iter().filter(|known| !by.upstreams.iter().any(|other| Arc::ptr_eq(known, other)));
        gone.flat_map(|upstream| &upstream.endpoints).for_each(|endpoint| endpoint.retire());
    }

    /// An upstream's name, by its index in the configuration.
    #[must_use]
    pub fn name_of(&self, upstream: usize) -> &Arc<str> {
        &self.upstreams[upstream].name
    }

    /// Closes connections that were idle too long; to be called every few seconds.
    pub fn sweep(&self) {
        for endpoint in self.upstreams.iter().flat_map(|upstream| &upstream.endpoints) {
            endpoint.sweep();
        }
    }

    /// Sends a request to its route's upstream and waits for the head of the response.
    ///
    /// # Errors
    /// [`ForwardError`]; the client has got no answer then.
    pub async fn forward(
        &self,
        request: Box<Request<IncomingBody>>,
        context: &ForwardContext<'_>,
    ) -> Result<ForwardedResponse, ForwardError> {
        let (upstream, route) = (&self.upstreams[context.upstream], context.route);
        let is_http2 = upstream.config.protocol == Protocol::Http2;
        // HTTP/2 has no upgrade, and a request for one may be answered without it (RFC 9110 §7.8).
        let websocket = headers::asks_for_websocket(&request) && !is_http2;
        let key = affinity::key_of(&upstream.config.balancing.balance, request.headers(), context);
        let (mut request, progress, mut awaited) = self.prepare(request, context, websocket);
        let interim = context.interim.as_ref().filter(|_| !is_http2);
        let is_call = websocket || (headers::asks_for_events(&request) && !is_http2);
        let is_mirrored = route.mirror.is_some() && !awaited.may_last();
        let mirror = if is_mirrored { self.mirrors.get(&route.name) } else { None };
        let copy = mirror.and_then(|mirror| mirror.copy(&mut request, context));
        let keeps_limits = self.keeps_limits;
        let attempts =
            RequestContext { forward: context, interim, keeps_limits, progress, websocket, is_call, key, copy };
        let answered = {
            let sent = pin!(upstream.send(request, attempts));
            before(&mut awaited.deadline, sent).await
        };
        let (guard, response) = answered.unwrap_or_else(|after| Err(upstream.timed_out(after, context)))?;
        awaited.pass_on(response, guard, upstream, route)
    }

    /// Turns the client's request into one to the upstream.
    fn prepare(
        &self,
        mut request: Box<Request<IncomingBody>>,
        context: &ForwardContext<'_>,
        websocket: bool,
    ) -> (Box<Request<Body>>, Option<Arc<Progress>>, AwaitedAnswer) {
        let (route, is_grpc) = (context.route, headers::is_grpc(&request));
        let upstream = &self.upstreams[context.upstream].config;
        let is_extended = extended_connect::was_extended_connect(&request);
        let client_end = if websocket { ClientEnd::of(&mut request) } else { None };
        let (mut parts, mut incoming) = request.into_parts();
        if is_grpc {
            incoming.stop_at_once();
        }
        headers::onto_upstream(&mut parts.headers, parts.version, context, websocket);
        let handshake = is_extended.then(|| Handshake::start(&mut parts.headers));
        let client_version = std::mem::replace(&mut parts.version, Version::HTTP_11);
        if let Some(target) = context.target.or(parts.uri.path_and_query()) {
            parts.uri = Uri::from(target.clone());
        }
        // They belong to the client's connection, but for the case of header names, which hyper keeps in one that it alone can name.
        if client_version == Version::HTTP_2 || upstream.header_case != HeaderCase::Preserve {
            parts.extensions.clear();
        }
        let clean = headers::clean_trailers_for_upstream;
        let max_silence = if is_grpc { route.call.idle_timeout } else { Some(self.client_idle) };
        let mut body = Body::relay(incoming, max_silence, route.max_body, clean, &route.request_headers);
        let progress = body.track(context.hold);
        // A gRPC stream is idle when both sides are silent, and may be idle for as long as a call.
        let upload = progress.as_ref().filter(|_| is_grpc).cloned();
        let body = if is_grpc { upload.iter().fold(body, Body::beside) } else { body.paced(route.upload) };
        let whole = if is_grpc { route.call.max_duration } else { route.timeout };
        let deadline = whole.map(|timeout| (Deadline::default(), timeout));
        let keeps_limits = self.keeps_limits;
        let awaited = AwaitedAnswer { client_end, handshake, is_grpc, upload, deadline, keeps_limits };
        (Box::new(Request::from_parts(parts, body)), progress, awaited)
    }
}

/// Waits for an answer, at most until the deadline; else returns how long that was.
async fn before<F: Future>(
    deadline: &mut Option<(Deadline, Duration)>,
    mut answer: Pin<&mut F>,
) -> Result<F::Output, Duration> {
    poll_fn(|cx| match (answer.as_mut().poll(cx), &mut *deadline) {
        (Poll::Ready(answer), _) => Poll::Ready(Ok(answer)),
        (Poll::Pending, Some((deadline, length))) => deadline.poll(cx, *length).map(|()| Err(*length)),
        (Poll::Pending, None) => Poll::Pending,
    })
    .await
}
