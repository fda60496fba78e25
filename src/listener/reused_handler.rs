//! Futures that handle the requests of an HTTP/2 connection, one after the other. Such a future is large, and a request soon over: it is
//! neither allocated nor moved anew for each.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use http::{Request, Response};

use crate::body::IncomingBody;

use super::handler::Handler;
use super::interim::Interim;
use super::peer::Peer;
use super::service::Listener;

/// A future of type `F` that handles requests; `B`: the body of an answer.
pub(super) struct ReusedHandler<F, B> {
    slot: Arc<HandlerSlot<B>>,
    future: Pin<Box<F>>,
}

/// The next request of a handler, and its last answer.
pub(super) struct HandlerSlot<B> {
    request: Mutex<Option<(Request<IncomingBody>, Interim)>>,
    answer: Mutex<Option<Response<B>>>,
}

impl<F: Future<Output = ()>, B> ReusedHandler<F, B> {
    /// `start`: begins to wait for requests.
    pub(super) fn new(start: impl FnOnce(Arc<HandlerSlot<B>>) -> F) -> Self {
        let slot = Arc::new(HandlerSlot { request: Mutex::default(), answer: Mutex::default() });
        Self { future: Box::pin(start(slot.clone())), slot }
    }

    /// Begins with a request, if the last one is answered.
    pub(super) fn begin(&self, request: Request<IncomingBody>, interim: Interim) {
        *locked(&self.slot.request) = Some((request, interim));
    }

    /// Ready with the answer.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response<B>> {
        // It never ends by itself.
        let _ = self.future.as_mut().poll(cx);
        locked(&self.slot.answer).take().map_or(Poll::Pending, Poll::Ready)
    }
}

impl<B> HandlerSlot<B> {
    /// The next request. Nobody is woken for it: whoever begins a request polls its handler.
    pub(super) async fn next(&self) -> (Request<IncomingBody>, Interim) {
        poll_fn(|_| locked(&self.request).take().map_or(Poll::Pending, Poll::Ready)).await
    }

    /// The answer to the last one.
    pub(super) fn answer(&self, answer: Response<B>) {
        *locked(&self.answer) = Some(answer);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Handles the requests that come to a slot, each with what the listener serves at that moment.
pub(super) async fn handle_all<H: Handler>(listener: &Listener<H>, peer: Arc<Peer>, slot: Arc<HandlerSlot<H::Body>>) {
    loop {
        let (request, interim) = slot.next().await;
        let answer = {
            let handler = listener.handler();
            let mut handled = pin!(handler.handle(Box::new(request), &peer, Some(interim)));
            // Polled in place: awaited, it would be copied, and it is large.
            poll_fn(|cx| handled.as_mut().poll(cx)).await
        };
        slot.answer(answer);
    }
}
