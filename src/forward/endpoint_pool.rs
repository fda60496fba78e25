//! Connections to one endpoint. HTTP/1.1: idle ones wait for their next request, and the last used is reused first. HTTP/2:
//! requests share them.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::Either;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use smallvec::SmallVec;

use crate::body::Body;
use crate::config::{Endpoint, EndpointAddress, Protocol, Upstream};

use super::connect::{self, Connected};
use super::connection_slot::{ConnectionCount, ConnectionSlot};
use super::exclusive_connection::ExclusiveConnection;
use super::request_form::onto_http2;
use super::resolve::EndpointAddr;
use super::shared_connection::{SharedConnection, StreamPermit};
use super::tls::EndpointTls;
use super::wait_queue::WaitQueues;

/// Addresses of one name that shared connections are made to at one time, per worker.
const MAX_SPREAD: usize = 16;
/// How long to wait after another address could not be connected to.
const SPREAD_BACKOFF: Duration = Duration::from_secs(5);

/// The connections of one worker to one endpoint.
pub(super) struct EndpointPool {
    /// `host:port`, for `Host`.
    pub(super) authority: HeaderValue,
    /// The endpoint's name in logs.
    pub(super) label: Arc<str>,
    addr: EndpointAddr,
    /// `Auto` is for TLS only.
    protocol: Protocol,
    tls: Option<EndpointTls>,
    upstream: Arc<Upstream>,
    usable: Mutex<Usable>,
    count: Arc<ConnectionCount>,
    /// Only one connection is made at a time that others may share.
    connecting: Arc<tokio::sync::Mutex<()>>,
}

/// Connections that can take a request, now or later, and how the last attempts to make more ended.
#[derive(Default)]
struct Usable {
    idle: VecDeque<ExclusiveConnection>,
    shared: Vec<Arc<SharedConnection>>,
    /// Over TLS, whether the endpoint chose HTTP/1.1 the last time.
    only_http1: bool,
    /// When the last attempt failed that other requests waited for, and why.
    failure: Option<(Instant, io::ErrorKind, Arc<str>)>,
    /// When the last attempt to connect to another address failed.
    spread_failed: Option<Instant>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NoConnection {
    /// It can't be made.
    Failed(io::Error),
    /// The endpoint has as many connections as allowed.
    Full,
}

/// A connection in use, or a stream of one. Dropped, an HTTP/1.1 connection is closed; released, it waits for its next request.
pub(super) struct PooledConnection {
    channel: Channel,
    /// Whether it existed before this request.
    pub(super) reused: bool,
    pub(super) pool: Arc<EndpointPool>,
}

enum Channel {
    Exclusive(ExclusiveConnection),
    Shared(StreamPermit),
}

impl EndpointPool {
    pub(super) fn new(
        endpoint: &Endpoint,
        addr: EndpointAddr,
        upstream: &Arc<Upstream>,
        tls: Option<EndpointTls>,
        queues: Arc<WaitQueues>,
    ) -> Self {
        let label = endpoint.to_string();
        let authority = match endpoint.address {
            EndpointAddress::Tcp { .. } => label.split_once("://").map_or(&*label, |(_, rest)| rest),
            // A path is no host.
            EndpointAddress::Unix(_) => "localhost",
        };
        let default_port = if endpoint.tls { ":443" } else { ":80" };
        let authority = authority.strip_suffix(default_port).unwrap_or(authority);
        Self {
            authority: HeaderValue::from_str(authority).unwrap_or_else(|_| HeaderValue::from_static("upstream")),
            label: label.into(),
            addr,
            protocol: match upstream.protocol {
                Protocol::Auto if !endpoint.tls => Protocol::Http1,
                protocol => protocol,
            },
            tls,
            upstream: upstream.clone(),
            usable: Mutex::default(),
            count: ConnectionCount::new(upstream.max_connections, queues),
            connecting: Arc::default(),
        }
    }

    /// A connection for one request: an existing one if possible. `exclusive`: one that no other request shares, for a WebSocket.
    /// `avoid`: one that has just refused the request.
    pub(super) async fn connection(
        self: &Arc<Self>,
        exclusive: bool,
        avoid: Option<&SharedConnection>,
    ) -> Result<PooledConnection, NoConnection> {
        if let Some(connection) = self.reuse(exclusive, avoid).await {
            return Ok(connection);
        }
        if exclusive || !self.may_share() {
            return self.connect(&self.addr, exclusive).await;
        }
        let arrived = Instant::now();
        let connecting = self.connecting.lock().await;
        if let Some(connection) = self.reuse(exclusive, avoid).await {
            return Ok(connection);
        }
        if !self.may_share() {
            drop(connecting);
            return self.connect(&self.addr, exclusive).await;
        }
        // Requests that waited for an attempt share its failure, as they would have shared its connection.
        if let Some((_, kind, text)) = self.lock().failure.as_ref().filter(|(when, ..)| *when >= arrived) {
            return Err(NoConnection::Failed(io::Error::new(*kind, text.to_string())));
        }
        let connection = self.connect(&self.addr, exclusive).await;
        if let Err(NoConnection::Failed(error)) = &connection {
            self.lock().failure = Some((Instant::now(), error.kind(), error.to_string().into()));
        }
        connection
    }

    fn may_share(&self) -> bool {
        match self.protocol {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Auto => !self.lock().only_http1,
        }
    }

    /// An existing connection, if one is usable.
    async fn reuse(self: &Arc<Self>, exclusive: bool, avoid: Option<&SharedConnection>) -> Option<PooledConnection> {
        if !exclusive && let Some(permit) = self.stream(avoid) {
            return Some(self.pooled(Channel::Shared(permit), true));
        }
        loop {
            let now = Instant::now();
            let mut connection = self.take_idle(now)?;
            if self.is_fresh(&connection, now) && connection.is_ready().await {
                return Some(self.pooled(Channel::Exclusive(connection), true));
            }
        }
    }

    /// The last used of the idle connections that don't rest.
    fn take_idle(&self, now: Instant) -> Option<ExclusiveConnection> {
        let idle = &mut self.lock().idle;
        let index = idle.iter().rposition(|connection| !connection.is_resting(now))?;
        idle.remove(index)
    }

    /// Whether an idle connection may be used again.
    fn is_fresh(&self, connection: &ExclusiveConnection, now: Instant) -> bool {
        connection.is_fresh(self.upstream.keep_alive, &self.addr, now)
    }

    /// A stream of the shared connection that has the fewest.
    fn stream(self: &Arc<Self>, avoid: Option<&SharedConnection>) -> Option<StreamPermit> {
        let usable = self.lock();
        if usable.shared.is_empty() {
            return None;
        }
        let now = Instant::now();
        let candidates = usable.shared.iter().filter(|shared| {
            let is_current = shared.slot.is_current(&self.addr, now);
            if !is_current {
                shared.retire();
            }
            is_current && shared.is_usable() && is_other(shared, avoid)
        });
        let candidates: SmallVec<[&Arc<SharedConnection>; 4]> = candidates.collect();
        let roomiest = *candidates.iter().min_by_key(|shared| shared.streams())?;
        let is_busy = roomiest.streams() > 0;
        // The roomiest may be at its peer's limit when another one is not.
        let permit = roomiest.try_stream().or_else(|| candidates.iter().find_map(|shared| shared.try_stream()));
        let failed_lately = usable.spread_failed.is_some_and(|when| now.duration_since(when) < SPREAD_BACKOFF);
        if is_busy && !failed_lately && candidates.len() < MAX_SPREAD {
            let used: SmallVec<[IpAddr; 4]> = candidates.iter().filter_map(|shared| shared.slot.address).collect();
            if let Some(addr) = self.addr.unused(&used) {
                self.spread(addr);
            }
        }
        permit
    }

    /// Makes a connection to another of the name's addresses: otherwise all requests that share connections would go to one.
    fn spread(self: &Arc<Self>, addr: EndpointAddr) {
        let Ok(connecting) = self.connecting.clone().try_lock_owned() else { return };
        let pool = self.clone();
        tokio::spawn(async move {
            if pool.connect(&addr, false).await.is_err() {
                pool.lock().spread_failed = Some(Instant::now());
            }
            drop(connecting);
        });
    }

    async fn connect(self: &Arc<Self>, addr: &EndpointAddr, exclusive: bool) -> Result<PooledConnection, NoConnection> {
        let take_slot = || self.count.take(self.upstream.max_lifetime);
        // Connections that their peer has closed count until they are swept. One that rests makes room for a new one.
        let slot = take_slot().or_else(|| {
            self.sweep();
            take_slot().or_else(|| {
                let now = Instant::now();
                let rests = |connection: &ExclusiveConnection| connection.is_resting(now);
                let resting = {
                    let idle = &mut self.lock().idle;
                    idle.iter().position(rests).map(|at| idle.remove(at))
                };
                drop(resting);
                take_slot()
            })
        });
        let slot = slot.ok_or(NoConnection::Full)?;
        let protocol = if exclusive { Protocol::Http1 } else { self.protocol };
        // Boxed: most requests reuse a connection, and would carry room for this future along.
        let connecting = Box::pin(connect::connect(addr, self.tls.as_ref(), protocol, &self.upstream, slot));
        let connected = tokio::time::timeout(self.upstream.connect_timeout, connecting).await;
        let channel = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(Connected::Http1(sender, slot)) => {
                // An exclusive connection offered nothing else, so it says nothing of the endpoint.
                self.lock().only_http1 |= !exclusive;
                Channel::Exclusive(ExclusiveConnection::new(sender, slot))
            }
            Ok(Connected::Http2(shared)) => {
                let permit = shared.try_stream();
                let mut usable = self.lock();
                usable.only_http1 = false;
                usable.shared.push(shared);
                drop(usable);
                self.count.queues.on_freed();
                Channel::Shared(permit.ok_or_else(|| NoConnection::Failed(io::ErrorKind::ConnectionAborted.into()))?)
            }
            Err(error) => return Err(NoConnection::Failed(error)),
        };
        Ok(self.pooled(channel, false))
    }

    /// Whether [`Self::connection`] would find or make a connection now.
    pub(super) fn has_room(&self, exclusive: bool, avoid: Option<&SharedConnection>) -> bool {
        let usable = self.lock();
        let can_take = |shared: &Arc<SharedConnection>| shared.has_room() && is_other(shared, avoid);
        if !usable.idle.is_empty() || self.count.has_room() || (!exclusive && usable.shared.iter().any(can_take)) {
            return true;
        }
        drop(usable);
        self.sweep();
        self.count.has_room()
    }

    fn pooled(self: &Arc<Self>, channel: Channel, reused: bool) -> PooledConnection {
        PooledConnection { channel, reused, pool: self.clone() }
    }

    /// Closes connections that are not to be used again. Those that waited too long are closed here, so that upstreams don't have to.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        let mut usable = self.lock();
        usable.idle.retain(|connection| self.is_fresh(connection, now));
        // A connection with requests on it ends with the last of them.
        usable.shared.retain(|shared| {
            shared.is_usable()
                && !shared.is_unused_for(self.upstream.keep_alive)
                && shared.slot.is_current(&self.addr, now)
        });
    }

    /// Closes all connections, each as soon as it carries no request.
    pub(super) fn close_all(&self) {
        let mut usable = self.lock();
        usable.idle.clear();
        usable.shared.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Usable> {
        self.usable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_other(connection: &SharedConnection, avoid: Option<&SharedConnection>) -> bool {
    avoid.is_none_or(|avoid| !std::ptr::eq(avoid, connection))
}

impl PooledConnection {
    /// The connection, if others may share it.
    pub(super) fn shared(&self) -> Option<&Arc<SharedConnection>> {
        match &self.channel {
            Channel::Exclusive(_) => None,
            Channel::Shared(permit) => Some(&permit.connection),
        }
    }

    /// Sends a request, which has its `Host`, in the form of this connection's protocol. Waits for the head of the response.
    pub(super) fn send(
        &mut self,
        mut request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Body>>>> {
        match &mut self.channel {
            Channel::Exclusive(connection) => Either::Left(connection.send(request)),
            Channel::Shared(permit) => {
                onto_http2(&mut request, self.pool.tls.is_some(), &self.pool.authority);
                Either::Right(permit.sender.try_send_request(request))
            }
        }
    }

    /// The connection did not answer in time: it takes no more requests.
    pub(super) fn retire(self) {
        // Dropped, an exclusive connection is closed.
        if let Channel::Shared(permit) = self.channel {
            permit.connection.retire();
        }
    }

    /// The connection has become a call. What could send requests on it is dropped: its channel takes more memory than the rest of an
    /// idle call.
    pub(super) fn into_slot(self) -> Option<ConnectionSlot> {
        match self.channel {
            Channel::Exclusive(connection) => Some(connection.slot),
            // Nothing is upgraded on a shared connection.
            Channel::Shared(_) => None,
        }
    }

    /// Request and response are complete: the connection may carry the next.
    pub(super) fn release(self) {
        let Channel::Exclusive(connection) = self.channel else { return };
        let Some(connection) = connection.into_idle() else { return };
        let mut usable = self.pool.lock();
        usable.idle.push_back(connection);
        if usable.idle.len() > self.pool.upstream.max_idle {
            usable.idle.pop_front();
        }
        drop(usable);
        self.pool.count.queues.on_freed();
    }
}
