//! An HTTP/1.1 connection, which carries one request at a time, and whether it may carry another.

use std::time::{Duration, Instant};

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::SendRequest;

use crate::body::Body;
use crate::deadline::Deadline;

use super::connection_slot::ConnectionSlot;
use super::headers::announces_body;
use super::request_form::onto_http1;
use super::resolve::EndpointAddr;

/// How long a connection rests when a body may follow that nobody asked for: what comes meanwhile ends it.
const REST: Duration = Duration::from_secs(1);

/// How long another worker may take to run the task of a connection of its own.
const MAX_BUSY: Duration = Duration::from_millis(100);

pub(super) struct ExclusiveConnection {
    sender: SendRequest<Body>,
    pub(super) slot: ConnectionSlot,
    last_used: Instant,
    late_body: LateBody,
    /// For the first byte of each answer: a timer that exists already is cheaper than a new one.
    pub(super) timer: Deadline,
}

/// Whether a service may send, behind an answer that must not have a body (RFC 9112 §6.3), the body that the answer announced. It
/// would be taken for the answer to the next request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LateBody {
    No,
    /// To HEAD and with 304 the length is that of another answer, so most often nothing comes.
    Unlikely,
    /// The service contradicts itself.
    Likely,
}

impl LateBody {
    fn of(is_head: bool, answer: &Response<Incoming>) -> Self {
        match answer.status() {
            StatusCode::NO_CONTENT if announces_body(answer.headers()) => Self::Likely,
            status if (is_head || status == StatusCode::NOT_MODIFIED) && announces_body(answer.headers()) => {
                Self::Unlikely
            }
            _ => Self::No,
        }
    }
}

impl ExclusiveConnection {
    pub(super) fn new(sender: SendRequest<Body>, slot: ConnectionSlot) -> Self {
        Self { sender, slot, last_used: Instant::now(), late_body: LateBody::No, timer: Deadline::default() }
    }

    /// Sends a request and waits for the head of the answer.
    pub(super) fn send(
        &mut self,
        mut request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Body>>>> {
        onto_http1(&mut request);
        let is_head = *request.method() == Method::HEAD;
        let answer = self.sender.try_send_request(request);
        async move {
            let answer = answer.await?;
            self.late_body = LateBody::of(is_head, &answer);
            Ok(answer)
        }
    }

    /// Whether it may be used again, once it has rested.
    pub(super) fn is_fresh(&self, keep_alive: Duration, addr: &EndpointAddr, now: Instant) -> bool {
        now.duration_since(self.last_used) < keep_alive && !self.sender.is_closed() && self.slot.is_current(addr, now)
    }

    /// Whether it takes no request for the moment.
    pub(super) fn is_resting(&self, now: Instant) -> bool {
        self.late_body != LateBody::No && now.duration_since(self.last_used) < REST
    }

    /// Whether it takes the next request now.
    pub(super) async fn is_ready(&mut self) -> bool {
        // The connection's task may not have run since the last response ended: let it run once.
        if !self.sender.is_ready() {
            tokio::task::yield_now().await;
        }
        let ready = std::future::poll_fn(|cx| std::task::Poll::Ready(self.sender.poll_ready(cx)));
        match ready.await {
            std::task::Poll::Ready(ready) => ready.is_ok(),
            // The task of one that another worker has made runs there.
            std::task::Poll::Pending => {
                let ready = Box::pin(tokio::time::timeout(MAX_BUSY, self.sender.ready()));
                matches!(ready.await, Ok(Ok(())))
            }
        }
    }

    /// Request and response are complete; `None`: it can't carry another request.
    pub(super) fn into_idle(mut self) -> Option<Self> {
        if self.sender.is_closed() || self.late_body == LateBody::Likely {
            return None;
        }
        self.last_used = Instant::now();
        Some(self)
    }
}
