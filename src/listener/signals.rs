//! What the gate of a connection and the handlers of its requests tell each other.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use futures_util::task::AtomicWaker;
use http::Request;

use super::head::RequestFault;
use super::interim_queue::InterimQueue;

/// The method of the request that stands in for a refused one.
const REFUSED: &str = "CALLGATE-REFUSED";
/// What a connection's gate and its request handler tell each other.
#[derive(Debug, Default)]
pub(super) struct Signals {
    pub(super) fault: OnceLock<RequestFault>,
    tunnel: AtomicBool,
    /// Bytes have come since this was asked last; noted on HTTP/2 only.
    heard: AtomicBool,
    /// Bytes of the body that comes on HTTP/1.1 which the client has not sent yet.
    owed: AtomicU64,
    /// Exchanges that are over.
    pub(super) over: AtomicUsize,
    /// The gate, when it waits for the exchanges before a refusal.
    pub(super) gate: AtomicWaker,
    /// Interim answers, which the gate writes.
    pub(super) interims: InterimQueue,
}

impl Signals {
    /// Why this request stands in for one that was refused; `None` for a real one.
    pub(super) fn fault<B>(&self, request: &Request<B>) -> Option<RequestFault> {
        let fault = self.fault.get()?;
        self.is_stand_in(request).then_some(*fault)
    }

    /// Whether this is no request of the client's.
    pub(super) fn is_stand_in<B>(&self, request: &Request<B>) -> bool {
        self.fault.get().is_some() && request.method().as_str() == REFUSED
    }

    /// The client has sent something.
    pub(super) fn note_heard(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Whether the client has sent anything since this was asked last.
    pub(super) fn take_heard(&self) -> bool {
        self.heard.swap(false, Ordering::Relaxed)
    }

    /// So many bytes of a body are still to come from the client.
    pub(super) fn set_owed(&self, bytes: u64) {
        self.owed.store(bytes, Ordering::Relaxed);
    }

    /// What was said last of that.
    pub(super) fn owed(&self) -> u64 {
        self.owed.load(Ordering::Relaxed)
    }

    /// One more exchange is over.
    pub(super) fn exchange_over(&self) {
        self.over.fetch_add(1, Ordering::Release);
        if self.fault.get().is_some() {
            self.gate.wake();
        }
    }

    /// Why the client's bytes were refused, whether or not the refusal has had its turn yet.
    pub(super) fn refusal(&self) -> Option<RequestFault> {
        self.fault.get().copied()
    }

    /// From here on the connection is a tunnel, and no requests come on it.
    pub(super) fn tunnel(&self) {
        self.tunnel.store(true, Ordering::Release);
    }

    /// Whether that was said.
    pub(super) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Ordering::Acquire)
    }
}
