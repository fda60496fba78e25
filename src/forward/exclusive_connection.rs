//! An HTTP/1.1 connection, which carries one request at a time, and whether it may carry another.

use std::future::poll_fn;
use std::pin::pin;
use std::time::{Duration, Instant};

use http::{Method, Request, Response, StatusCode};
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::SendRequest;
use tokio::task::unconstrained;
use tokio::time::timeout;

use crate::body::{Body, Driver, ServiceBody};
use crate::deadline::Deadline;

use super::connection_slot::ConnectionSlot;
use super::headers::announces_body;
use super::request_form::onto_http1;
use super::resolve::EndpointAddr;

/// How long a connection rests when a body may follow that nobody asked for: what comes meanwhile ends it.
const REST: Duration = Duration::from_secs(1);

/// How long another worker may take to run the task of a connection of its own.
const MAX_BUSY: Duration = Duration::from_millis(100);

/// A connection that has carried a request within this time is still open, most likely. One that is not returns its next request unsent.
const LATELY: Duration = Duration::from_millis(100);

pub(super) struct ExclusiveConnection {
    sender: SendRequest<Body>,
    driver: Driver,
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
    fn of<B>(is_head: bool, answer: &Response<B>) -> Self {
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
    pub(super) fn new(sender: SendRequest<Body>, driver: Driver, slot: ConnectionSlot) -> Self {
        Self { sender, driver, slot, last_used: Instant::now(), late_body: LateBody::No, timer: Deadline::default() }
    }

    /// Sends a request and waits for the head of the answer.
    pub(super) fn send(
        &mut self,
        mut request: Request<Body>,
    ) -> impl Future<Output = Result<Response<ServiceBody>, TrySendError<Request<Body>>>> {
        onto_http1(&mut request);
        let is_head = *request.method() == Method::HEAD;
        if !request.body().is_whole() {
            // The rest of it may come while nobody waits for the answer.
            self.driver.detach();
        }
        let answer = self.sender.try_send_request(request);
        async move {
            // Its waker is nobody's, so a task whose budget is over must not have to wait for it.
            let mut answer = pin!(unconstrained(answer));
            let answer = poll_fn(|cx| self.driver.poll(cx, |cx| answer.as_mut().poll(cx))).await?;
            self.late_body = LateBody::of(is_head, &answer);
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                // It gives the connection away.
                self.driver.detach();
            }
            Ok(answer.map(|body| ServiceBody::http1(body, self.driver.clone())))
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
        if self.last_used.elapsed() < LATELY && self.sender.is_ready() {
            return true;
        }
        // The service may have closed it.
        let is_here = !self.driver.rest();
        if self.sender.is_ready() || is_here {
            return self.sender.is_ready();
        }
        // Its task may not have run since the last response ended: let it run once.
        tokio::task::yield_now().await;
        // That of one that another worker has made runs there.
        self.sender.is_ready() || matches!(timeout(MAX_BUSY, Box::pin(self.sender.ready())).await, Ok(Ok(())))
    }

    /// Another worker gets it: what it needs of its own worker stays there.
    pub(super) fn leave_worker(&mut self) {
        self.driver.detach();
        // A timer belongs to the runtime of its worker.
        self.timer = Deadline::default();
    }

    /// Looks whether the service has closed it.
    pub(super) fn look(&self) {
        self.driver.rest();
    }

    /// Request and response are complete; `None`: it can't carry another request.
    pub(super) fn into_idle(mut self) -> Option<Self> {
        self.driver.unwatch();
        // A service may have answered before it took the whole request: the rest of that still has to be sent.
        let is_unsent = !self.sender.is_ready() && !self.driver.rest() && !self.sender.is_ready();
        if is_unsent || self.sender.is_closed() || self.late_body == LateBody::Likely {
            return None;
        }
        self.last_used = Instant::now();
        Some(self)
    }
}
