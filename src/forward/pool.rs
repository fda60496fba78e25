//! Connections to one endpoint. HTTP/1.1: those that wait for their next request, the one used last first. HTTP/2: those that
//! requests share.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::SendRequest;
use tokio::sync::Semaphore;

use crate::body::Body;
use crate::config::{Endpoint, Protocol, Upstream};

use super::connect::{self, Connected, UpstreamTls};
use super::http2::{self, Shared, Stream};

/// The connections of one worker to one endpoint.
pub(super) struct EndpointPool {
    pub(super) endpoint: Endpoint,
    /// `host:port`, for `Host`.
    pub(super) authority: HeaderValue,
    /// The endpoint as logs name it.
    pub(super) label: Arc<str>,
    tls: Option<UpstreamTls>,
    ready: Mutex<Ready>,
    open: Arc<AtomicUsize>,
    /// Who makes a connection that others may share does so alone.
    turn: Semaphore,
    settings: Settings,
}

/// What holds for all connections of an upstream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) protocol: Protocol,
    pub(super) connect_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) ping: Option<Duration>,
    keep_alive: Duration,
    max_idle: usize,
    max_connections: usize,
}

/// Connections that can take a request, or will.
#[derive(Default)]
struct Ready {
    idle: VecDeque<Idle>,
    shared: Vec<Arc<Shared>>,
    /// Over TLS, whether the endpoint spoke HTTP/1.1 when it was asked last.
    only_http1: bool,
    /// When the last attempt to make a connection failed that others waited for, and why.
    failure: Option<(Instant, io::ErrorKind, Arc<str>)>,
}

struct Idle {
    own: Own,
    since: Instant,
}

/// A connection that carries one request at a time.
struct Own {
    sender: SendRequest<Body>,
    _open: Open,
}

/// One connection among those that an endpoint may have; dropped, it is closed.
pub(super) struct Open(Arc<AtomicUsize>);

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NoConnection {
    /// It can't be made.
    Failed(io::Error),
    /// There are as many as may be.
    Full,
}

/// A connection in use, or a place on one. Dropped, an HTTP/1.1 connection is closed; released, it waits for its next request.
pub(super) struct Lease {
    way: Way,
    /// Whether the connection was there before.
    pub(super) reused: bool,
    pool: Arc<EndpointPool>,
}

enum Way {
    Own(Own),
    Stream(Stream),
}

impl EndpointPool {
    pub(super) fn new(endpoint: &Endpoint, upstream: &Upstream, tls: Option<UpstreamTls>) -> Self {
        let label = endpoint.to_string();
        let authority = label.split_once("://").map_or(&*label, |(_, rest)| rest);
        let default_port = if endpoint.tls { ":443" } else { ":80" };
        let authority = authority.strip_suffix(default_port).unwrap_or(authority);
        let protocol =
            if upstream.protocol == Protocol::Auto && !endpoint.tls { Protocol::Http1 } else { upstream.protocol };
        Self {
            endpoint: endpoint.clone(),
            authority: HeaderValue::from_str(authority).unwrap_or_else(|_| HeaderValue::from_static("upstream")),
            label: label.into(),
            tls,
            ready: Mutex::default(),
            open: Arc::default(),
            turn: Semaphore::new(1),
            settings: Settings {
                protocol,
                connect_timeout: upstream.connect_timeout,
                idle_timeout: upstream.idle_timeout,
                ping: upstream.ping,
                keep_alive: upstream.keep_alive,
                max_idle: upstream.max_idle,
                max_connections: upstream.max_connections,
            },
        }
    }

    /// A connection for one request: one that is there, or else a new one. `own`: one that nobody shares, for a WebSocket.
    /// `avoid`: one that has just refused the request.
    ///
    /// # Errors
    /// [`NoConnection`].
    pub(super) async fn lease(self: &Arc<Self>, own: bool, avoid: Option<&Shared>) -> Result<Lease, NoConnection> {
        if let Some(lease) = self.reuse(own, avoid).await {
            return Ok(lease);
        }
        if own || !self.may_share() {
            return self.connect(own).await;
        }
        let came = Instant::now();
        // The semaphore is never closed.
        let _turn = self.turn.acquire().await;
        if let Some(lease) = self.reuse(own, avoid).await {
            return Ok(lease);
        }
        if !self.may_share() {
            drop(_turn);
            return self.connect(own).await;
        }
        // Who has waited for an attempt shares its failure as he would have shared its connection.
        if let Some((_, kind, text)) = self.lock().failure.as_ref().filter(|(when, ..)| *when >= came) {
            return Err(NoConnection::Failed(io::Error::new(*kind, text.to_string())));
        }
        let lease = self.connect(own).await;
        if let Err(NoConnection::Failed(error)) = &lease {
            self.lock().failure = Some((Instant::now(), error.kind(), error.to_string().into()));
        }
        lease
    }

    fn may_share(&self) -> bool {
        match self.settings.protocol {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Auto => !self.lock().only_http1,
        }
    }

    /// A connection that is there, if one is fit for use.
    async fn reuse(self: &Arc<Self>, own: bool, avoid: Option<&Shared>) -> Option<Lease> {
        if !own {
            let ready = self.lock();
            let fit = ready.shared.iter().filter(|shared| avoid.is_none_or(|avoid| !std::ptr::eq(avoid, &***shared)));
            if let Some(stream) = fit.into_iter().find_map(Shared::take) {
                return Some(self.leased(Way::Stream(stream), true));
            }
        }
        loop {
            let Idle { mut own, since } = self.lock().idle.pop_back()?;
            if since.elapsed() >= self.settings.keep_alive || own.sender.is_closed() {
                continue;
            }
            // Its task may not have run since the last response ended; it is given one turn to do so.
            if !own.sender.is_ready() {
                tokio::task::yield_now().await;
            }
            let ready = poll_fn(|cx| match own.sender.poll_ready(cx) {
                Poll::Ready(result) => Poll::Ready(result.is_ok()),
                Poll::Pending => Poll::Ready(false),
            });
            if ready.await {
                return Some(self.leased(Way::Own(own), true));
            }
        }
    }

    /// A new connection.
    async fn connect(self: &Arc<Self>, own: bool) -> Result<Lease, NoConnection> {
        let open = Open::take(&self.open, self.settings.max_connections).ok_or(NoConnection::Full)?;
        let protocol = if own { Protocol::Http1 } else { self.settings.protocol };
        let connecting = connect::connect(&self.endpoint, self.tls.as_ref(), protocol, &self.settings, open);
        let connected = tokio::time::timeout(self.settings.connect_timeout, connecting).await;
        let way = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(Connected::Http1(sender, open)) => {
                self.lock().only_http1 = true;
                Way::Own(Own { sender, _open: open })
            }
            Ok(Connected::Http2(shared)) => {
                let stream = shared.take();
                let mut ready = self.lock();
                ready.only_http1 = false;
                ready.shared.push(shared);
                Way::Stream(stream.ok_or_else(|| NoConnection::Failed(io::ErrorKind::ConnectionAborted.into()))?)
            }
            Err(error) => return Err(NoConnection::Failed(error)),
        };
        Ok(self.leased(way, false))
    }

    fn leased(self: &Arc<Self>, way: Way, reused: bool) -> Lease {
        Lease { way, reused, pool: self.clone() }
    }

    /// Closes connections that waited too long, so that an upstream never has to.
    pub(super) fn sweep(&self) {
        let keep_alive = self.settings.keep_alive;
        let mut ready = self.lock();
        ready.idle.retain(|idle| idle.since.elapsed() < keep_alive && !idle.own.sender.is_closed());
        // Streams hold their connection: it ends with the last of them.
        ready.shared.retain(|shared| shared.is_fit() && !shared.is_unused_for(keep_alive));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn take(open: &Arc<AtomicUsize>, cap: usize) -> Option<Self> {
        if open.fetch_add(1, Ordering::Relaxed) >= cap {
            open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self(open.clone()))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lease {
    /// Who is at the other end.
    pub(super) fn endpoint(&self) -> Arc<str> {
        self.pool.label.clone()
    }

    /// The connection, if others may share it.
    pub(super) fn shared(&self) -> Option<&Arc<Shared>> {
        match &self.way {
            Way::Own(_) => None,
            Way::Stream(stream) => Some(stream.connection()),
        }
    }

    /// Sends a request and waits for the head of its response. The request has its `Host`; here it gets the form of this
    /// connection's protocol.
    pub(super) async fn send(
        &mut self,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        match &mut self.way {
            Way::Own(own) => {
                http2::onto_http1(&mut request);
                own.sender.try_send_request(request).await
            }
            Way::Stream(stream) => {
                http2::onto_http2(&mut request, self.pool.endpoint.tls, &self.pool.authority);
                stream.sender.try_send_request(request).await
            }
        }
    }

    /// The connection did not answer in time.
    pub(super) fn retire(self) {
        match self.way {
            // Nobody else uses it: dropped, it is closed.
            Way::Own(_) => {}
            Way::Stream(stream) => stream.retire(),
        }
    }

    /// The exchange is over, request and response: the connection may carry the next.
    pub(super) fn release(self) {
        let Way::Own(own) = self.way else { return };
        if own.sender.is_closed() {
            return;
        }
        let mut ready = self.pool.lock();
        if ready.idle.len() >= self.pool.settings.max_idle {
            ready.idle.pop_front();
        }
        ready.idle.push_back(Idle { own, since: Instant::now() });
    }
}
