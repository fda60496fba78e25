//! To the upstream and back: an endpoint is chosen, headers are made right, and both bodies stream.

mod affinity;
mod balance;
mod client;
mod connect;
mod error;
mod extended;
mod grpc_health;
mod headers;
mod http2;
mod interim;
mod kept;
mod lease;
mod line;
mod mirror;
mod open;
mod pool;
mod probe;
mod resolve;
mod tls;
mod tunnel;
mod upstream;

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::task::Poll;
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use ipnet::IpNet;

use crate::body::{Body, BodyGuard, IncomingBody, Progress};
use crate::config::{self, Protocol};
use crate::deadline::End;
use crate::listener::Interim;
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

use balance::RoundRobin;
use extended::Handshake;
use line::WaitQueues;
use mirror::Mirroring;
use pool::EndpointPool;
use tunnel::ClientEnd;
use upstream::{RequestContext, UpstreamPools};

pub use balance::{EndpointReport, UpstreamReport, Upstreams};
pub use client::client_address;
pub use error::ForwardError;
pub use extended::extended_connect_to_upgrade;
pub use headers::{asks_for_websocket, is_grpc, is_last_hop};
// For the benchmarks alone.
#[doc(hidden)]
pub use headers::{onto_client, onto_upstream};
pub use lease::{CallPermits, Lease, Lease as ResponseGuard};
pub use resolve::ResolvedNames;
pub use tls::UpstreamError;
pub use tunnel::{CutReason, EndedBy, TransferStats, Tunnel, TunnelEnd};

/// What is settled about a request when it is forwarded.
pub struct ForwardContext<'a> {
    /// The settings that hold for it.
    pub route: &'a config::Route,
    /// Where it goes: an index in [`config::Config::upstreams`].
    pub upstream: usize,
    /// The address at the other end of the client's connection.
    pub peer: SocketAddr,
    /// Whether the client speaks TLS to us.
    pub https: bool,
    /// The host (and port) that the client asked for.
    pub authority: &'a str,
    /// Path and query where they are not the client's own.
    pub target: Option<&'a PathAndQuery>,
    /// The id that goes along.
    pub request_id: &'a HeaderValue,
    /// Who asks, in headers.
    pub identity: &'a [(HeaderName, HeaderValue)],
    /// Networks whose forwarding headers are believed.
    pub trusted_proxies: &'a [IpNet],
    /// Passes interim answers on; `None` when the client can't be sent any.
    pub interim: Option<Interim>,
    /// Makes what the request's body holds on to: it may outlive the answer.
    pub hold: &'a (dyn Fn() -> BodyGuard + Sync),
    /// How often an endpoint was asked by now.
    pub attempts: AtomicU32,
}

/// An upstream's answer, ready for the client.
pub struct Answer {
    /// Status, headers and body.
    pub response: Response<Body>,
    /// To be released when the body has ended well.
    pub lease: Lease,
    /// Who answered.
    pub endpoint: Arc<str>,
    /// The two ends of a call, when the upstream switched protocols.
    pub tunnel: Option<Box<Tunnel>>,
}

/// One worker's way to every upstream.
pub struct Forwarder {
    upstreams: Vec<Arc<UpstreamPools>>,
    /// Of the routes that have one, by name.
    mirrors: HashMap<Arc<str>, Arc<Mirroring>>,
    client_idle: Duration,
}

impl Forwarder {
    /// Lays out pools, without connecting. `shared` is what all workers know of the endpoints; the drain waits for copies of requests.
    ///
    /// # Errors
    /// [`UpstreamError`] when TLS can't be used as configured.
    pub fn new(
        config: &config::Config,
        names: &ResolvedNames,
        shared: &Upstreams,
        metrics: &Metrics,
        shutdown: &Shutdown,
    ) -> Result<Self, UpstreamError> {
        let upstreams = config.upstreams.iter().enumerate().map(|(index, upstream)| {
            let connectors = tls::connectors(upstream)?;
            let lines = Arc::new(WaitQueues::new());
            let endpoints = upstream.endpoints.iter().map(|endpoint| {
                let tls = tls::tls_for(endpoint, connectors.as_ref(), upstream.tls.server_name.as_deref())?;
                let place = names.place(endpoint, upstream.resolve_interval);
                Ok(Arc::new(EndpointPool::new(endpoint, place, upstream, tls, lines.clone())))
            });
            Ok(Arc::new(UpstreamPools {
                config: upstream.clone(),
                endpoints: endpoints.collect::<Result<_, UpstreamError>>()?,
                roster: shared.roster(index),
                turns: RoundRobin::new(upstream.endpoints.len()),
                lines,
                metrics: metrics.upstream(&upstream.name),
            }))
        });
        let upstreams = upstreams.collect::<Result<Vec<_>, _>>()?;
        let mirrors = config.routes.iter().filter_map(|route| {
            let mirror = Mirroring::new(route, &upstreams, shared, metrics, shutdown)?;
            Some((route.name.clone(), Arc::new(mirror)))
        });
        Ok(Self { mirrors: mirrors.collect(), upstreams, client_idle: config.listen.body_idle_timeout })
    }

    /// Closes connections that waited too long; to be called every few seconds.
    pub fn sweep(&self) {
        for endpoint in self.upstreams.iter().flat_map(|upstream| &upstream.endpoints) {
            endpoint.sweep();
        }
    }

    /// Sends a request to its route's upstream and waits for the head of the response.
    ///
    /// # Errors
    /// [`ForwardError`]; nothing has been answered then.
    pub async fn forward(
        &self,
        request: Request<IncomingBody>,
        onward: &ForwardContext<'_>,
    ) -> Result<Answer, ForwardError> {
        let upstream = &self.upstreams[onward.upstream];
        // Over HTTP/2 nothing is upgraded, and who is asked to may go on without (RFC 9110 §7.8).
        let websocket = headers::asks_for_websocket(&request) && upstream.config.protocol != Protocol::Http2;
        let unfolded = extended::is_unfolded(&request);
        // A stream of gRPC is a call: silent when neither side speaks, and for as long as the route lets calls be silent.
        let is_grpc = headers::is_grpc(&request);
        let key = affinity::key_of(&upstream.config.balancing.balance, request.headers(), onward);
        let (mut request, client_end, progress) = self.prepare(request, onward, websocket, is_grpc);
        let handshake = unfolded.then(|| Handshake::begin(request.headers_mut()));
        let beside = progress.clone().filter(|_| is_grpc);
        let mut end = onward.route.timeout.filter(|_| !is_grpc).map(End::after);
        let interim = onward.interim.as_ref().filter(|_| upstream.config.protocol != Protocol::Http2);
        if let Some(interim) = interim {
            interim::pass_on(&mut request, interim, onward.route);
        }
        // What may last for as long as a call is not copied.
        let is_mirrored = onward.route.mirror.is_some() && !websocket && !unfolded && !is_grpc;
        let mirroring = if is_mirrored { self.mirrors.get(&onward.route.name) } else { None };
        let copy = mirroring.and_then(|mirroring| mirroring.copy(&mut request, onward));
        let answered = {
            let sent = pin!(upstream.send(request, RequestContext { onward, progress, websocket, key, copy }));
            let sent = pin!(async {
                match interim {
                    None => sent.await,
                    Some(interim) => interim.beside(sent).await,
                }
            });
            before(&mut end, sent).await
        };
        let (mut lease, mut response) = answered.unwrap_or_else(|after| Err(upstream.late(after, onward)))?;
        let endpoint = lease.endpoint();
        if let Err(error) = judge(&response, &endpoint, websocket, handshake.as_ref()) {
            upstream.metrics.bad_answers.inc();
            return Err(error);
        }
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let tunnel = switched
            .then(|| Some(Box::new(Tunnel::new(client_end?, hyper::upgrade::on(&mut response), onward.route.call))))
            .flatten();
        let (mut parts, body) = response.into_parts();
        headers::onto_client(&mut parts.headers, switched);
        if parts.status == StatusCode::NO_CONTENT {
            // It has no body and may speak of none (RFC 9110 §8.6): clients of HTTP/2 take it for a mistake.
            parts.headers.remove(header::CONTENT_LENGTH);
        }
        headers::edit_for_client(&mut parts.headers, onward.route);
        let body =
            if parts.version == Version::HTTP_2 { IncomingBody::Answer(body) } else { IncomingBody::Hyper(body) };
        // Towards the client it is our version that counts (RFC 9112 §2.3).
        parts.version = Version::HTTP_11;
        let body = if switched {
            lease.begins_stream();
            Body::Empty
        } else {
            // Events come when something happens: how long they may be silent is told by the route, as for a call.
            let (idle, end) = if is_grpc || headers::has_events(&parts.headers) {
                lease.begins_stream();
                (onward.route.call.idle_timeout, None)
            } else {
                (Some(onward.route.idle_timeout.unwrap_or(upstream.config.idle_timeout)), end)
            };
            let edits = &onward.route.response_headers;
            let body = Body::relay(body, idle, u64::MAX, headers::clean_trailers_for_client, edits).until(end);
            beside.iter().fold(body, Body::beside)
        };
        let mut response = Response::from_parts(parts, body);
        if unfolded && switched {
            Handshake::fold(&mut response);
        }
        Ok(Answer { response, lease, endpoint, tunnel })
    }

    /// Makes the client's request one to the upstream.
    fn prepare(
        &self,
        mut request: Request<IncomingBody>,
        onward: &ForwardContext<'_>,
        websocket: bool,
        is_grpc: bool,
    ) -> (Request<Body>, Option<ClientEnd>, Option<Arc<Progress>>) {
        let client_end = websocket.then(|| ClientEnd::of(&mut request));
        let (mut parts, mut incoming) = request.into_parts();
        if is_grpc {
            incoming.stop_at_once();
        }
        headers::onto_upstream(&mut parts.headers, parts.version, onward, websocket);
        parts.version = Version::HTTP_11;
        if let Some(target) = onward.target.or(parts.uri.path_and_query()) {
            parts.uri = Uri::from(target.clone());
        }
        // What hyper's server noted about the client's connection is not for the upstream's.
        parts.extensions.clear();
        let (limit, edits) = (onward.route.max_body, &onward.route.request_headers);
        let clean = headers::clean_trailers_for_upstream;
        let idle = if is_grpc { onward.route.call.idle_timeout } else { Some(self.client_idle) };
        let mut body = Body::relay(incoming, idle, limit, clean, edits);
        let progress = body.track(onward.hold);
        if let Some(progress) = progress.as_ref().filter(|_| is_grpc) {
            body = body.beside(progress);
        }
        (Request::from_parts(parts, body), client_end, progress)
    }
}

/// Waits for an answer, at most until `end`; else tells how long that was.
async fn before<F: Future>(end: &mut Option<End>, mut answer: Pin<&mut F>) -> Result<F::Output, Duration> {
    poll_fn(|cx| match (answer.as_mut().poll(cx), &mut *end) {
        (Poll::Ready(answer), _) => Poll::Ready(Ok(answer)),
        (Poll::Pending, Some(end)) => end.poll(cx).map(Err),
        (Poll::Pending, None) => Poll::Pending,
    })
    .await
}

/// Refuses answers that can't be passed on: they would be taken for another thing than they are.
fn judge(
    response: &Response<Incoming>,
    endpoint: &Arc<str>,
    websocket: bool,
    handshake: Option<&Handshake>,
) -> Result<(), ForwardError> {
    let headers = response.headers();
    if headers::has_two_lengths(headers) {
        return Err(ForwardError::TwoLengths(endpoint.clone()));
    }
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if switched && !(websocket && headers::has_websocket(headers)) {
        return Err(ForwardError::Unasked(endpoint.clone()));
    }
    // To an extended CONNECT every 2xx says that the WebSocket is open.
    let opened =
        |handshake: &Handshake| if switched { handshake.is_accepted(headers) } else { !response.status().is_success() };
    if handshake.is_some_and(|handshake| !opened(handshake)) {
        return Err(ForwardError::NoWebSocket(endpoint.clone()));
    }
    Ok(())
}
