//! Rooms, in which the requests of an HTTP/2 connection are answered. What answers a request is large, and soon over: so a room serves one
//! request after the other, and is neither allocated nor filled anew for each.

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

/// `A`: what answers the requests; `B`: the body of an answer.
pub(super) struct Room<A, B> {
    desk: Arc<Desk<B>>,
    answers: Pin<Box<A>>,
}

/// Where a room's next request lies, and its last answer.
pub(super) struct Desk<B> {
    request: Mutex<Option<(Request<IncomingBody>, Interim)>>,
    answer: Mutex<Option<Response<B>>>,
}

impl<A: Future<Output = ()>, B> Room<A, B> {
    /// `answers`: begins to wait for requests.
    pub(super) fn new(answers: impl FnOnce(Arc<Desk<B>>) -> A) -> Self {
        let desk = Arc::new(Desk { request: Mutex::default(), answer: Mutex::default() });
        Self { answers: Box::pin(answers(desk.clone())), desk }
    }

    /// Takes a request, if the last one is answered.
    pub(super) fn ask(&self, request: Request<IncomingBody>, interim: Interim) {
        *locked(&self.desk.request) = Some((request, interim));
    }

    /// Ready with the answer.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response<B>> {
        // It never ends by itself.
        let _ = self.answers.as_mut().poll(cx);
        locked(&self.desk.answer).take().map_or(Poll::Pending, Poll::Ready)
    }
}

impl<B> Desk<B> {
    /// The next request. Nobody is woken for it: its room is polled.
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

/// Answers the requests that come to a desk, each with what the listener serves at that moment.
pub(super) async fn answer_all<H: Handler>(listener: &Listener<H>, peer: Arc<Peer>, desk: Arc<Desk<H::Body>>) {
    loop {
        let (request, interim) = desk.next().await;
        let answer = {
            let handler = listener.handler();
            let mut handled = pin!(handler.handle(Box::new(request), &peer, Some(interim)));
            // Polled in place: awaited, it would be copied, and it is large.
            poll_fn(|cx| handled.as_mut().poll(cx)).await
        };
        desk.answer(answer);
    }
}
