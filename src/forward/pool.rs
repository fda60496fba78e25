//! Connections to one endpoint that wait for their next request: the one used last is used first.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use http::HeaderValue;
use hyper::client::conn::http1::SendRequest;

use crate::body::Body;
use crate::config::{Endpoint, Upstream};

use super::connect::{self, UpstreamTls};

/// The connections of one worker to one endpoint.
pub(super) struct EndpointPool {
    pub(super) endpoint: Endpoint,
    /// `host:port`, for `Host`.
    pub(super) authority: HeaderValue,
    /// The endpoint as logs name it.
    pub(super) label: Arc<str>,
    tls: Option<UpstreamTls>,
    idle: Mutex<VecDeque<Idle>>,
    max_idle: usize,
    keep_alive: Duration,
    idle_timeout: Duration,
}

struct Idle {
    sender: SendRequest<Body>,
    since: Instant,
}

/// A connection in use. Dropped, it is closed; released, it waits for its next request.
pub struct Lease {
    pub(super) sender: SendRequest<Body>,
    /// Whether it has carried a request before.
    pub(super) reused: bool,
    pool: Arc<EndpointPool>,
}

impl EndpointPool {
    pub(super) fn new(endpoint: &Endpoint, upstream: &Upstream, tls: Option<UpstreamTls>) -> Self {
        let label = endpoint.to_string();
        let authority = label.split_once("://").map_or(&*label, |(_, rest)| rest);
        let default_port = if endpoint.tls { ":443" } else { ":80" };
        let authority = authority.strip_suffix(default_port).unwrap_or(authority);
        Self {
            endpoint: endpoint.clone(),
            authority: HeaderValue::from_str(authority).unwrap_or_else(|_| HeaderValue::from_static("upstream")),
            label: label.into(),
            tls,
            idle: Mutex::new(VecDeque::new()),
            max_idle: upstream.max_idle,
            keep_alive: upstream.keep_alive,
            idle_timeout: upstream.idle_timeout,
        }
    }

    /// A connection that waits, if one is fit for use.
    pub(super) async fn reuse(self: &Arc<Self>) -> Option<Lease> {
        loop {
            let Idle { mut sender, since } = self.lock().pop_back()?;
            if since.elapsed() >= self.keep_alive || sender.is_closed() {
                continue;
            }
            // Its task may not have run since the last response ended; it is given one turn to do so.
            if !sender.is_ready() {
                tokio::task::yield_now().await;
            }
            let ready = poll_fn(|cx| match sender.poll_ready(cx) {
                Poll::Ready(result) => Poll::Ready(result.is_ok()),
                Poll::Pending => Poll::Ready(false),
            });
            if ready.await {
                return Some(Lease { sender, reused: true, pool: self.clone() });
            }
        }
    }

    /// A new connection.
    ///
    /// # Errors
    /// The operating system's, or the TLS handshake's.
    pub(super) async fn connect(self: &Arc<Self>) -> io::Result<Lease> {
        let sender = connect::connect(&self.endpoint, self.tls.as_ref(), self.idle_timeout).await?;
        Ok(Lease { sender, reused: false, pool: self.clone() })
    }

    /// Closes connections that waited too long, so that an upstream never has to.
    pub(super) fn sweep(&self) {
        self.lock().retain(|idle| idle.since.elapsed() < self.keep_alive && !idle.sender.is_closed());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Who is at the other end.
    pub(super) fn endpoint(&self) -> Arc<str> {
        self.pool.label.clone()
    }

    /// The exchange is over, request and response: the connection may carry the next.
    pub fn release(self) {
        if self.sender.is_closed() {
            return;
        }
        let mut idle = self.pool.lock();
        if idle.len() >= self.pool.max_idle {
            idle.pop_front();
        }
        idle.push_back(Idle { sender: self.sender, since: Instant::now() });
    }
}
