//! The open streams of an HTTP/2 connection. They are polled in the connection's task, each when it was woken.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::Request;
use http_body::Body;
use tokio::task::coop::has_budget_remaining;

use crate::body::BodyError;

use super::interim::InterimQueue;
use super::reused_handler::{HandlerSlot, ReusedHandler};
use super::stream::Stream;
use super::wakeups::{StreamWaker, Wakeups};

/// Handlers that are kept for further requests, until the client has been silent for a while.
const MAX_KEPT: usize = 16;

/// `F` and `B` are those of a [`ReusedHandler`].
pub(super) struct OpenStreams<F, B> {
    places: Vec<Place<F, B>>,
    /// Places without a stream.
    vacant: Vec<usize>,
    /// Those that are free.
    handlers: Vec<ReusedHandler<F, B>>,
    wakeups: Arc<Wakeups>,
    /// Places to poll.
    woken: Vec<usize>,
    /// How long a client may leave a piece of an answer where it is.
    write_timeout: Duration,
    are_cut: bool,
}

struct Place<F, B> {
    stream: Option<Stream<F, B>>,
    interims: Arc<InterimQueue>,
    wakes: Arc<StreamWaker>,
    waker: Waker,
}

impl<F, B> Place<F, B> {
    fn new(number: usize, wakeups: &Arc<Wakeups>) -> Self {
        let wakes = StreamWaker::new(number, wakeups);
        Self { stream: None, interims: Arc::default(), waker: wakes.clone().into(), wakes }
    }
}

impl<F, B> OpenStreams<F, B>
where
    F: Future<Output = ()>,
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    pub(super) fn new(wakeups: Arc<Wakeups>, write_timeout: Duration) -> Self {
        let (places, vacant, handlers, woken) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { places, vacant, handlers, wakeups, woken, write_timeout, are_cut: false }
    }

    /// One more stream begins, and is polled in this turn.
    pub(super) fn begin(
        &mut self,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        start: impl FnOnce(Arc<HandlerSlot<B>>) -> F,
    ) {
        let number = self.vacant.pop().unwrap_or_else(|| {
            self.places.push(Place::new(self.places.len(), &self.wakeups));
            self.places.len() - 1
        });
        let place = &mut self.places[number];
        match Arc::get_mut(&mut place.interims) {
            Some(interims) => interims.begin(),
            // Something still has the last one.
            None => place.interims = Arc::default(),
        }
        let handler = || self.handlers.pop().unwrap_or_else(|| ReusedHandler::new(start));
        place.stream = Stream::begin(request, respond, place.interims.clone(), handler);
        match &place.stream {
            Some(stream) if self.are_cut => stream.cut(),
            Some(_) => {}
            None => return self.vacant.push(number),
        }
        place.waker.wake_by_ref();
    }

    /// Polls each stream that was woken once, as far as the task's budget goes; `false` if some are left for the next turn.
    pub(super) fn poll_woken(&mut self) -> bool {
        self.wakeups.take_streams(&mut self.woken);
        let mut polled = 0;
        while let Some(&number) = self.woken.get(polled).filter(|_| has_budget_remaining()) {
            polled += 1;
            let Some(place) = self.places.get_mut(number) else { continue };
            place.wakes.begin_poll();
            let Some(stream) = &mut place.stream else { continue };
            let mut cx = Context::from_waker(&place.waker);
            // A panic costs one stream, as it would in a task of its own.
            let polled =
                catch_unwind(AssertUnwindSafe(|| stream.poll(&mut cx, self.write_timeout, &mut self.handlers)));
            if polled.map_or(true, |polled| polled.is_ready()) {
                let _ = catch_unwind(AssertUnwindSafe(|| place.stream = None));
                self.vacant.push(number);
            }
        }
        self.handlers.truncate(MAX_KEPT);
        self.woken.drain(..polled);
        self.woken.is_empty()
    }

    /// Cuts the requests among them, and those to come.
    pub(super) fn cut(&mut self) {
        self.are_cut = true;
        self.places.iter().filter_map(|place| place.stream.as_ref()).for_each(Stream::cut);
    }

    pub(super) fn are_cut(&self) -> bool {
        self.are_cut
    }

    /// Frees what is kept for further streams.
    pub(super) fn shrink(&mut self) {
        if self.vacant.len() == self.places.len() {
            (self.places, self.vacant, self.handlers, self.woken) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        }
    }
}
