//! Connections to one endpoint. HTTP/1.1: idle ones wait for their next request, and the last used is reused first. HTTP/2:
//! requests share them.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures_util::future::Either;
use http::{HeaderValue, Request, Response};
use hyper::client::conn::TrySendError;
use smallvec::SmallVec;

use crate::body::{Body, ServiceBody};
use crate::config::{Endpoint, EndpointAddress, Protocol, Upstream};
use crate::deadline::Deadline;

use super::connect::{self, Connected};
use super::connection_slot::ConnectionSlot;
use super::exclusive_connection::ExclusiveConnection;
use super::kept_connections::{EndpointConnections, KeptConnections, lock};
use super::request_form::onto_http2;
use super::resolve::EndpointAddr;
use super::shared_connection::{SharedConnection, StreamPermit};
use super::tls::EndpointTls;

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
    pub(super) addr: EndpointAddr,
    /// `Auto` is for TLS only.
    protocol: Protocol,
    tls: Option<EndpointTls>,
    upstream: Arc<Upstream>,
    kept: Arc<Mutex<KeptConnections>>,
    pub(super) attempts: Mutex<ConnectAttempts>,
    /// Those of all workers.
    pub(super) connections: Arc<EndpointConnections>,
    /// Only one connection is made at a time that others may share.
    pub(super) connecting: Arc<tokio::sync::Mutex<()>>,
}

/// How the last attempts to connect ended.
#[derive(Default)]
pub(super) struct ConnectAttempts {
    /// Over TLS, whether the endpoint chose HTTP/1.1 the last time.
    only_http1: bool,
    /// When the last attempt failed that other requests waited for, and why.
    pub(super) failure: Option<(Instant, io::ErrorKind, Arc<str>)>,
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

pub(super) enum Channel {
    Exclusive(ExclusiveConnection),
    Shared(StreamPermit),
}

impl EndpointPool {
    pub(super) fn new(
        endpoint: &Endpoint,
        addr: EndpointAddr,
        upstream: &Arc<Upstream>,
        tls: Option<EndpointTls>,
        connections: Arc<EndpointConnections>,
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
            kept: connections.join(),
            attempts: Mutex::default(),
            connections,
            connecting: Arc::default(),
        }
    }

    pub(super) fn take_slot(&self) -> Option<ConnectionSlot> {
        self.connections.count.take(self.upstream.max_lifetime)
    }

    pub(super) fn may_share(&self) -> bool {
        match self.protocol {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Auto => !lock(&self.attempts).only_http1,
        }
    }

    /// Whether an idle connection may be used again.
    pub(super) fn is_fresh(&self, connection: &ExclusiveConnection, now: Instant) -> bool {
        connection.is_fresh(self.upstream.keep_alive, &self.addr, now)
    }

    /// A stream of the shared connection that has the fewest.
    pub(super) fn stream(self: &Arc<Self>, avoid: Option<&SharedConnection>) -> Option<StreamPermit> {
        let kept = self.lock();
        if kept.shared.is_empty() {
            return None;
        }
        let now = Instant::now();
        let candidates = kept.shared.iter().filter(|shared| {
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
        let failed_lately = || {
            let failed = lock(&self.attempts).spread_failed;
            failed.is_some_and(|when| now.duration_since(when) < SPREAD_BACKOFF)
        };
        if is_busy && candidates.len() < MAX_SPREAD {
            let used: SmallVec<[IpAddr; 4]> = candidates.iter().filter_map(|shared| shared.slot.address).collect();
            if let Some(addr) = self.addr.unused(&used)
                && !failed_lately()
            {
                self.spread(addr);
            }
        }
        permit
    }

    /// Makes a connection to another of the name's addresses: otherwise all requests that share connections would go to one.
    fn spread(self: &Arc<Self>, addr: EndpointAddr) {
        let Ok(connecting) = self.connecting.clone().try_lock_owned() else { return };
        let Some(slot) = self.take_slot() else { return };
        let pool = self.clone();
        tokio::spawn(async move {
            if pool.connect(&addr, false, slot).await.is_err() {
                lock(&pool.attempts).spread_failed = Some(Instant::now());
            }
            drop(connecting);
        });
    }

    /// Makes a connection with this slot, to one of the addresses.
    pub(super) async fn connect(
        self: &Arc<Self>,
        addr: &EndpointAddr,
        exclusive: bool,
        slot: ConnectionSlot,
    ) -> io::Result<Channel> {
        let protocol = if exclusive { Protocol::Http1 } else { self.protocol };
        // Boxed: most requests reuse a connection, and would carry room for this future along.
        let connecting = Box::pin(connect::connect(addr, self.tls.as_ref(), protocol, &self.upstream, slot));
        let connected = tokio::time::timeout(self.upstream.connect_timeout, connecting).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))? {
            Connected::Http1(sender, driver, slot) => {
                // An exclusive connection offered nothing else, so it says nothing of the endpoint.
                if !exclusive && self.protocol == Protocol::Auto {
                    lock(&self.attempts).only_http1 = true;
                }
                Ok(Channel::Exclusive(ExclusiveConnection::new(sender, driver, slot)))
            }
            Connected::Http2(shared) => {
                let permit = shared.try_stream();
                lock(&self.attempts).only_http1 = false;
                self.lock().shared.push(shared);
                self.connections.count.queues.on_freed();
                Ok(Channel::Shared(permit.ok_or(io::ErrorKind::ConnectionAborted)?))
            }
        }
    }

    /// Gives a connection to a request, or, if that is a call, refuses it.
    pub(super) fn pooled(
        self: &Arc<Self>,
        channel: Channel,
        reused: bool,
        is_call: bool,
    ) -> Result<PooledConnection, NoConnection> {
        let mut connection = PooledConnection { channel, reused, pool: self.clone() };
        if is_call && !connection.try_begin_call() {
            connection.release();
            return Err(NoConnection::Full);
        }
        Ok(connection)
    }

    /// Closes connections that are not to be used again. Those that waited too long are closed here, so that upstreams don't have to.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        let mut kept = self.lock();
        kept.idle.retain(|connection| {
            connection.look();
            self.is_fresh(connection, now)
        });
        // A connection with requests on it ends with the last of them.
        kept.shared.retain(|shared| {
            shared.is_usable()
                && !shared.is_unused_for(self.upstream.keep_alive)
                && shared.slot.is_current(&self.addr, now)
        });
    }

    /// The configuration no longer has it as it is: no connection waits for another request.
    pub(super) fn retire(&self) {
        self.lock().is_retired = true;
        self.close_all();
    }

    /// Closes all connections, each as soon as it carries no request.
    pub(super) fn close_all(&self) {
        let mut kept = self.lock();
        kept.idle.clear();
        kept.shared.clear();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, KeptConnections> {
        lock(&self.kept)
    }
}

/// Whether a connection is another one than the one to avoid.
pub(super) fn is_other(connection: &SharedConnection, avoid: Option<&SharedConnection>) -> bool {
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
    ) -> impl Future<Output = Result<Response<ServiceBody>, TrySendError<Request<Body>>>> {
        match &mut self.channel {
            Channel::Exclusive(connection) => Either::Left(connection.send(request)),
            Channel::Shared(permit) => {
                onto_http2(&mut request, self.pool.tls.is_some(), &self.pool.authority);
                let answer = permit.sender.try_send_request(request);
                Either::Right(async move { Ok(answer.await?.map(ServiceBody::http2)) })
            }
        }
    }

    /// The timer of a connection that carries one request at a time.
    pub(super) fn timer(&mut self) -> Option<&mut Deadline> {
        match &mut self.channel {
            Channel::Exclusive(connection) => Some(&mut connection.timer),
            Channel::Shared(_) => None,
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

    /// A call holds the connection. Returns whether it may; streams of shared connections are not counted.
    pub(super) fn try_begin_call(&mut self) -> bool {
        match &mut self.channel {
            Channel::Exclusive(connection) => connection.slot.try_begin_call(),
            Channel::Shared(_) => true,
        }
    }

    /// Request and response are complete: the connection may carry the next.
    pub(super) fn release(self) {
        let Channel::Exclusive(connection) = self.channel else { return };
        let Some(mut connection) = connection.into_idle() else { return };
        connection.slot.end_call();
        let mut kept = self.pool.lock();
        kept.idle.push_back(connection);
        if kept.is_retired || kept.idle.len() > self.pool.upstream.max_idle {
            kept.idle.pop_front();
        }
        drop(kept);
        self.pool.connections.count.queues.on_freed();
    }
}
