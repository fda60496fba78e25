//! Connections to one endpoint. HTTP/1.1: those that wait for their next request, the one used last first. HTTP/2: those that
//! requests share.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::future::Either;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::SendRequest;
use smallvec::SmallVec;
use tokio::sync::Semaphore;

use crate::body::Body;
use crate::config::{Endpoint, EndpointAddress, Protocol, Upstream};

use super::connect::{self, Connected, Place};
use super::http2::{self, Shared, Stream};
use super::line::WaitQueues;
use super::open::{Count, Open, Settings};
use super::tls::UpstreamTls;

/// Addresses of one name that connections shared by requests are made to at one time, per worker.
const MOST_SPREAD: usize = 16;
/// After a vain attempt to connect to another address so long a pause.
const SPREAD_PAUSE: Duration = Duration::from_secs(5);

/// The connections of one worker to one endpoint.
pub(super) struct EndpointPool {
    pub(super) endpoint: Endpoint,
    /// `host:port`, for `Host`.
    pub(super) authority: HeaderValue,
    /// The endpoint as logs name it.
    pub(super) label: Arc<str>,
    place: Place,
    tls: Option<UpstreamTls>,
    ready: Mutex<Ready>,
    open: Arc<Count>,
    /// Who makes a connection that others may share does so alone.
    turn: Arc<Semaphore>,
    settings: Settings,
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
    /// When a connection to another address could not be made last.
    no_spread: Option<Instant>,
}

struct Idle {
    own: Own,
    since: Instant,
}

/// A connection that carries one request at a time.
struct Own {
    sender: SendRequest<Body>,
    open: Open,
}

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
    /// `lines` are told when a connection can take one more request.
    pub(super) fn new(
        endpoint: &Endpoint,
        place: Place,
        upstream: &Upstream,
        tls: Option<UpstreamTls>,
        lines: Arc<WaitQueues>,
    ) -> Self {
        let label = endpoint.to_string();
        let authority = match endpoint.address {
            EndpointAddress::Tcp { .. } => label.split_once("://").map_or(&*label, |(_, rest)| rest),
            // A path is no host.
            EndpointAddress::Unix(_) => "localhost",
        };
        let default_port = if endpoint.tls { ":443" } else { ":80" };
        let authority = authority.strip_suffix(default_port).unwrap_or(authority);
        let protocol =
            if upstream.protocol == Protocol::Auto && !endpoint.tls { Protocol::Http1 } else { upstream.protocol };
        Self {
            endpoint: endpoint.clone(),
            authority: HeaderValue::from_str(authority).unwrap_or_else(|_| HeaderValue::from_static("upstream")),
            label: label.into(),
            place,
            tls,
            ready: Mutex::default(),
            open: Count::new(lines),
            turn: Arc::new(Semaphore::new(1)),
            settings: Settings::of(upstream, protocol),
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
        if !own && let Some(stream) = self.share(avoid) {
            return Some(self.leased(Way::Stream(stream), true));
        }
        loop {
            let Idle { mut own, since } = self.lock().idle.pop_back()?;
            let now = Instant::now();
            let waited = now.duration_since(since) >= self.settings.keep_alive;
            if waited || own.sender.is_closed() || !own.open.is_current(&self.place, now) {
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

    /// A place on the shared connection that has the most room.
    fn share(self: &Arc<Self>, avoid: Option<&Shared>) -> Option<Stream> {
        let ready = self.lock();
        if ready.shared.is_empty() {
            return None;
        }
        let now = Instant::now();
        let fit = |shared: &&Arc<Shared>| {
            let current = shared.open().is_current(&self.place, now);
            if !current {
                shared.retire();
            }
            current && shared.is_fit() && avoid.is_none_or(|avoid| !std::ptr::eq(avoid, &***shared))
        };
        let fit: SmallVec<[&Arc<Shared>; 4]> = ready.shared.iter().filter(fit).collect();
        let roomiest = *fit.iter().min_by_key(|shared| shared.streams())?;
        let is_busy = roomiest.streams() > 0;
        // The roomiest may be at what its peer takes when another one is not.
        let stream = roomiest.take().or_else(|| fit.iter().find_map(|shared| shared.take()));
        let failed_lately = ready.no_spread.is_some_and(|when| now.duration_since(when) < SPREAD_PAUSE);
        if is_busy && !failed_lately && fit.len() < MOST_SPREAD {
            let used: SmallVec<[IpAddr; 4]> = fit.iter().filter_map(|shared| shared.open().address()).collect();
            if let Some(other) = self.place.beside(&used) {
                self.spread(other);
            }
        }
        stream
    }

    /// Makes a connection to another of the name's addresses, beside those that are there: requests that share connections would
    /// all go to one address else.
    fn spread(self: &Arc<Self>, other: Place) {
        let Ok(turn) = self.turn.clone().try_acquire_owned() else { return };
        let pool = self.clone();
        tokio::spawn(async move {
            let made = pool.connect_to(&other, false).await;
            if made.is_err() {
                pool.lock().no_spread = Some(Instant::now());
            }
            drop(turn);
        });
    }

    /// A new connection.
    async fn connect(self: &Arc<Self>, own: bool) -> Result<Lease, NoConnection> {
        self.connect_to(&self.place, own).await
    }

    async fn connect_to(self: &Arc<Self>, place: &Place, own: bool) -> Result<Lease, NoConnection> {
        let open = self.open_one().ok_or(NoConnection::Full)?;
        let protocol = if own { Protocol::Http1 } else { self.settings.protocol };
        // Most requests find a connection. What making one takes would be moved about with each of them.
        let connecting = Box::pin(connect::connect(place, self.tls.as_ref(), protocol, &self.settings, open));
        let connected = tokio::time::timeout(self.settings.connect_timeout, connecting).await;
        let way = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(Connected::Http1(sender, open)) => {
                // Where nothing else was offered, the endpoint has told nothing.
                self.lock().only_http1 |= !own;
                Way::Own(Own { sender, open })
            }
            Ok(Connected::Http2(shared)) => {
                let stream = shared.take();
                let mut ready = self.lock();
                ready.only_http1 = false;
                ready.shared.push(shared);
                drop(ready);
                self.open.freed();
                Way::Stream(stream.ok_or_else(|| NoConnection::Failed(io::ErrorKind::ConnectionAborted.into()))?)
            }
            Err(error) => return Err(NoConnection::Failed(error)),
        };
        Ok(self.leased(way, false))
    }

    /// One more connection among those that may be. Who is closed by its peer but not put away yet does not count.
    fn open_one(&self) -> Option<Open> {
        Open::take(&self.open, &self.settings).or_else(|| {
            self.sweep();
            Open::take(&self.open, &self.settings)
        })
    }

    /// Whether a request could be sent now that needs a connection of its `own`, or not, and is to `avoid` one.
    pub(super) fn has_room(&self, own: bool, avoid: Option<&Shared>) -> bool {
        let is_new = |shared: &Shared| avoid.is_none_or(|avoid| !std::ptr::eq(avoid, shared));
        let ready = self.lock();
        if !ready.idle.is_empty() || self.open.has_room(&self.settings) {
            return true;
        }
        if !own && ready.shared.iter().any(|shared| shared.has_room() && is_new(shared)) {
            return true;
        }
        drop(ready);
        self.sweep();
        self.open.has_room(&self.settings)
    }

    fn leased(self: &Arc<Self>, way: Way, reused: bool) -> Lease {
        Lease { way, reused, pool: self.clone() }
    }

    /// Closes connections that waited too long, so that an upstream never has to, and those that are no longer to be used.
    pub(super) fn sweep(&self) {
        let (keep_alive, now) = (self.settings.keep_alive, Instant::now());
        let mut ready = self.lock();
        ready.idle.retain(|idle| {
            let own = &idle.own;
            now.duration_since(idle.since) < keep_alive
                && !own.sender.is_closed()
                && own.open.is_current(&self.place, now)
        });
        // Streams hold their connection: it ends with the last of them.
        ready.shared.retain(|shared| {
            shared.is_fit() && !shared.is_unused_for(keep_alive) && shared.open().is_current(&self.place, now)
        });
    }

    /// Lets go of all connections: each ends with what it carries.
    pub(super) fn let_go(&self) {
        let mut ready = self.lock();
        ready.idle.clear();
        ready.shared.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
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
    pub(super) fn send(
        &mut self,
        mut request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Body>>>> {
        match &mut self.way {
            Way::Own(own) => {
                http2::onto_http1(&mut request);
                Either::Left(own.sender.try_send_request(request))
            }
            Way::Stream(stream) => {
                http2::onto_http2(&mut request, self.pool.endpoint.tls, &self.pool.authority);
                Either::Right(stream.sender.try_send_request(request))
            }
        }
    }

    /// The connection did not answer in time.
    pub(super) fn retire(self) {
        match self.way {
            // Nobody else uses it: dropped, it is closed.
            Way::Own(_) => {}
            Way::Stream(stream) => stream.connection().retire(),
        }
    }

    /// The connection has become a call. What could send requests on it is let go of, and its memory with it: that of a channel for
    /// requests is more than all the rest of an idle call.
    pub(super) fn into_open(self) -> Option<Open> {
        match self.way {
            Way::Own(own) => Some(own.open),
            // Nothing is upgraded on a shared connection.
            Way::Stream(_) => None,
        }
    }

    /// The exchange is over, request and response: the connection may carry the next.
    pub(super) fn release(self) {
        let Way::Own(own) = self.way else { return };
        if own.sender.is_closed() {
            return;
        }
        let mut ready = self.pool.lock();
        ready.idle.push_back(Idle { own, since: Instant::now() });
        if ready.idle.len() > self.pool.settings.max_idle {
            ready.idle.pop_front();
        }
        drop(ready);
        self.pool.open.freed();
    }
}
