//! Rooms, in which the requests of an HTTP/2 connection are answered. What answers a request is large, and soon over: so a room serves one
//! request after the other, and is neither allocated nor filled anew for each.

use std::future::{Future, poll_fn};
use std::pin::Pin;
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

/// Where a room's requests and answers lie.
pub(super) struct Desk<B> {
    content: Mutex<Content<B>>,
}

enum Content<B> {
    Nothing,
    Request(Request<IncomingBody>, Interim),
    Answer(Response<B>),
}

impl<A: Future<Output = ()>, B> Room<A, B> {
    /// `answers`: begins to wait for requests.
    pub(super) fn new(answers: impl FnOnce(Arc<Desk<B>>) -> A) -> Self {
        let desk = Arc::new(Desk { content: Mutex::new(Content::Nothing) });
        Self { answers: Box::pin(answers(desk.clone())), desk }
    }

    /// Takes a request, if the last one is answered.
    pub(super) fn ask(&self, request: Request<IncomingBody>, interim: Interim) {
        *self.desk.lock() = Content::Request(request, interim);
    }

    /// Ready with the answer.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response<B>> {
        // It never ends by itself.
        let _ = self.answers.as_mut().poll(cx);
        match self.desk.take_if(|content| matches!(content, Content::Answer(_))) {
            Some(Content::Answer(answer)) => Poll::Ready(answer),
            _ => Poll::Pending,
        }
    }
}

impl<B> Desk<B> {
    fn lock(&self) -> MutexGuard<'_, Content<B>> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_if(&self, is_wanted: impl FnOnce(&Content<B>) -> bool) -> Option<Content<B>> {
        let mut content = self.lock();
        is_wanted(&content).then(|| std::mem::replace(&mut *content, Content::Nothing))
    }

    /// Takes the next request. Nobody is woken for it: its room is polled.
    fn poll_request(&self) -> Poll<(Request<IncomingBody>, Interim)> {
        match self.take_if(|content| matches!(content, Content::Request(..))) {
            Some(Content::Request(request, interim)) => Poll::Ready((request, interim)),
            _ => Poll::Pending,
        }
    }
}

/// Answers the requests that come to a desk, each with what the listener serves at that moment.
pub(super) async fn answer_all<H: Handler>(listener: &Listener<H>, peer: Arc<Peer>, desk: Arc<Desk<H::Body>>) {
    loop {
        let (request, interim) = poll_fn(|_| desk.poll_request()).await;
        let answer = listener.handler().handle(request, &peer, Some(interim)).await;
        *desk.lock() = Content::Answer(answer);
    }
}
