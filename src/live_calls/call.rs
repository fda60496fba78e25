//! One open call: what it is, how much it has carried, and that it has to end.

use std::fmt;
use std::future::poll_fn;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::task::AtomicWaker;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The name of a call: unique over all instances, and the later the call began, the greater (UUIDv7, RFC 9562 §5.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CallId(Uuid);

/// What a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallKind {
    /// An upgraded connection.
    WebSocket,
    /// A stream of server-sent events.
    Events,
    /// A request of gRPC, of any kind.
    Grpc,
}

/// The token that a call was opened with.
#[derive(Debug, Clone)]
pub(crate) struct CallToken {
    /// Its public id.
    pub(crate) id: Arc<str>,
    /// Its name.
    pub(crate) name: Arc<str>,
    /// The account that owns it.
    pub(crate) account: Arc<str>,
}

/// Where a call comes from and goes to.
#[derive(Debug, Clone)]
pub(crate) struct CallOrigin {
    /// What it is.
    pub(crate) kind: CallKind,
    /// `None` on a public route.
    pub(crate) token: Option<CallToken>,
    /// The client's address.
    pub(crate) client: IpAddr,
    /// The name of the route.
    pub(crate) route: Arc<str>,
    /// The name of the upstream.
    pub(crate) upstream: Arc<str>,
    /// The id of the request that opened it.
    pub(crate) request_id: Box<str>,
}

/// One call. What it carries is noted by the call itself, now and then.
#[derive(Debug)]
pub(crate) struct CallState {
    id: CallId,
    origin: CallOrigin,
    since: SystemTime,
    endpoint: OnceLock<Arc<str>>,
    /// From the client, and from the upstream.
    bytes: [AtomicU64; 2],
    messages: [AtomicU64; 2],
    /// Why it has to end, once somebody wants that.
    end: OnceLock<Box<str>>,
    waker: AtomicWaker,
}

/// What people see of a call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CallReport {
    /// Its name.
    pub(crate) id: String,
    /// `websocket`, `events` or `grpc`.
    pub(crate) kind: String,
    /// The instance that carries it.
    pub(crate) instance: String,
    /// The id of its token.
    pub(crate) token: Option<String>,
    /// The name of its token.
    pub(crate) token_name: Option<String>,
    /// The account of its token.
    pub(crate) account: Option<String>,
    /// The client's address.
    pub(crate) client: String,
    /// The name of the route.
    pub(crate) route: String,
    /// The name of the upstream.
    pub(crate) upstream: String,
    /// The endpoint that carries it, once it has answered.
    pub(crate) endpoint: Option<String>,
    /// When it began, as RFC 3339.
    pub(crate) since: String,
    /// How long it has been open.
    pub(crate) seconds: f64,
    /// Bytes from the client.
    pub(crate) bytes_in: u64,
    /// Bytes from the upstream.
    pub(crate) bytes_out: u64,
    /// Messages from the client, where there are such.
    pub(crate) messages_in: Option<u64>,
    /// Messages from the upstream, where there are such.
    pub(crate) messages_out: Option<u64>,
    /// The id of the request that opened it.
    pub(crate) request_id: String,
}

impl CallId {
    fn new(now: SystemTime) -> Self {
        let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let mut random = [0; 10];
        fastrand::fill(&mut random);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for CallId {
    type Err = ();

    /// As [`CallId`] is written, and no other spelling.
    fn from_str(text: &str) -> Result<Self, ()> {
        let id = Self(Uuid::try_parse(text).map_err(|_| ())?);
        if id.to_string() == text { Ok(id) } else { Err(()) }
    }
}

impl CallKind {
    /// For logs and answers.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Events => "events",
            Self::Grpc => "grpc",
        }
    }
}

impl CallState {
    pub(super) fn new(origin: CallOrigin, now: SystemTime) -> Self {
        Self {
            id: CallId::new(now),
            origin,
            since: now,
            endpoint: OnceLock::new(),
            bytes: Default::default(),
            messages: Default::default(),
            end: OnceLock::new(),
            waker: AtomicWaker::new(),
        }
    }

    /// Where it comes from and goes to.
    pub(super) fn origin(&self) -> &CallOrigin {
        &self.origin
    }

    /// Its name.
    pub(crate) fn id(&self) -> CallId {
        self.id
    }

    /// The token that it was opened with.
    pub(crate) fn token(&self) -> Option<&CallToken> {
        self.origin.token.as_ref()
    }

    /// Notes which endpoint carries it.
    pub(crate) fn set_endpoint(&self, endpoint: &Arc<str>) {
        // It stays with the first.
        let _ = self.endpoint.set(endpoint.clone());
    }

    /// Notes the bytes and messages that have passed so far, from the client and from the upstream.
    pub(crate) fn note(&self, bytes: [u64; 2], messages: [u64; 2]) {
        for (cells, numbers) in [(&self.bytes, bytes), (&self.messages, messages)] {
            for (cell, number) in cells.iter().zip(numbers) {
                cell.store(number, Ordering::Relaxed);
            }
        }
    }

    /// Has it end, unless it is ending already.
    pub(super) fn tell_end(&self, reason: &str) {
        // The first reason is as good as the next.
        let _ = self.end.set(reason.into());
        self.waker.wake();
    }

    /// What people see of it.
    pub(crate) fn report(&self, instance: &str, now: SystemTime) -> CallReport {
        let CallOrigin { kind, token, client, route, upstream, request_id } = &self.origin;
        let [bytes_in, bytes_out] = [0, 1].map(|from| self.bytes[from].load(Ordering::Relaxed));
        let messages =
            |from: usize| (*kind == CallKind::WebSocket).then(|| self.messages[from].load(Ordering::Relaxed));
        CallReport {
            id: self.id.to_string(),
            kind: kind.as_str().to_owned(),
            instance: instance.to_owned(),
            token: token.as_ref().map(|token| token.id.to_string()),
            token_name: token.as_ref().map(|token| token.name.to_string()),
            account: token.as_ref().map(|token| token.account.to_string()),
            client: client.to_string(),
            route: route.to_string(),
            upstream: upstream.to_string(),
            endpoint: self.endpoint.get().map(ToString::to_string),
            since: humantime::format_rfc3339_seconds(self.since).to_string(),
            seconds: (now.duration_since(self.since).unwrap_or_default().as_millis() as f64) / 1e3,
            bytes_in,
            bytes_out,
            messages_in: messages(0),
            messages_out: messages(1),
            request_id: request_id.to_string(),
        }
    }

    /// Resolves when the call has to end: with the reason.
    pub(crate) async fn ended(&self) -> Box<str> {
        poll_fn(|cx| self.poll_ended(cx).map(Into::into)).await
    }

    /// The same as a poll. One task at a time may wait.
    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<&str> {
        self.waker.register(cx.waker());
        self.end.get().map_or(Poll::Pending, |reason| Poll::Ready(reason))
    }
}
