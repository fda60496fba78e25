//! Interim answers (1xx) on their way to a client, and how the drain reaches a request on HTTP/2. What carries the request (the
//! connection on HTTP/1.1, the stream on HTTP/2) sends them before the answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;

use futures_util::task::AtomicWaker;
use http::header::HeaderMap;
use http::{Response, StatusCode};

/// Interim answers that one request may get.
const MAX_INTERIMS: usize = 16;
/// Bytes of all of them.
const MAX_INTERIM_BYTES: usize = 64 << 10;

/// A request whose interim answers are passed on until its answer comes.
#[derive(Debug)]
pub struct Interim {
    queue: Arc<InterimQueue>,
}

/// Tells them.
#[derive(Debug)]
pub struct InterimSender {
    queue: Arc<InterimQueue>,
}

/// What waits to be sent.
#[derive(Debug, Default)]
pub(super) struct InterimQueue {
    waiting: Mutex<Waiting>,
    is_any: AtomicBool,
    carrier: AtomicWaker,
    is_call: AtomicBool,
    is_cut: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    answers: Vec<Response<()>>,
    count: usize,
    bytes: usize,
    /// The answer proper has been given.
    is_over: bool,
}

impl InterimQueue {
    /// To be called by what carries the request: it is woken when there is something to send.
    pub(super) fn watch(&self, cx: &Context<'_>) {
        self.carrier.register(cx.waker());
    }

    /// What is to be sent next.
    pub(super) fn take(&self) -> Vec<Response<()>> {
        if !self.is_any.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut self.lock().answers)
    }

    /// The answer proper comes: from here on nothing is told, and nobody woken.
    pub(super) fn over(&self) {
        drop(self.carrier.take());
        self.lock().is_over = true;
    }

    /// The next request begins.
    pub(super) fn begin(&mut self) {
        *self = Self::default();
    }

    /// The request is a call, which goes on when requests are cut.
    fn becomes_call(&self) {
        self.is_call.store(true, Ordering::Release);
    }

    /// Cuts the request, unless it is a call.
    pub(super) fn cut(&self) {
        if !self.is_call.load(Ordering::Acquire) {
            self.is_cut.store(true, Ordering::Release);
            self.carrier.wake();
        }
    }

    /// Whether it was cut. The task that has called [`InterimQueue::watch`] is woken for it.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }

    /// Tells the client to send its body (RFC 9110 §10.1.1). It gets that whatever the upstream sent before.
    pub(super) fn go_on(&self) {
        self.push(StatusCode::CONTINUE, HeaderMap::new(), |_| true);
    }

    fn push(&self, status: StatusCode, headers: HeaderMap, admits: impl FnOnce(&mut Waiting) -> bool) {
        let mut waiting = self.lock();
        if waiting.is_over || !admits(&mut waiting) {
            return;
        }
        let mut answer = Response::new(());
        (*answer.status_mut(), *answer.headers_mut()) = (status, headers);
        waiting.answers.push(answer);
        self.is_any.store(true, Ordering::Release);
        drop(waiting);
        self.carrier.wake();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Whether there may be one more of so many bytes; it is counted then.
    fn admits(&mut self, bytes: usize) -> bool {
        let admitted = self.count < MAX_INTERIMS && self.bytes + bytes <= MAX_INTERIM_BYTES;
        if admitted {
            (self.count, self.bytes) = (self.count + 1, self.bytes + bytes);
        }
        admitted
    }
}

impl Interim {
    pub(super) fn on(queue: &Arc<InterimQueue>) -> Self {
        Self { queue: queue.clone() }
    }

    /// What tells the client of this request.
    #[must_use]
    pub fn sender(&self) -> InterimSender {
        InterimSender { queue: self.queue.clone() }
    }

    /// The request is a call, which goes on when requests are cut. A connection of HTTP/1.1 knows that.
    pub(super) fn becomes_call(&self) {
        self.queue.becomes_call();
    }
}

impl InterimSender {
    /// Tells an interim answer. One that comes too late, or is one too many, is dropped.
    pub fn send(&self, status: StatusCode, headers: HeaderMap) {
        let bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        self.queue.push(status, headers, |waiting| waiting.admits(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_is_over_lets_go_of_its_task() {
        struct Task;
        impl std::task::Wake for Task {
            fn wake(self: Arc<Self>) {}
        }
        let (queue, task) = (Arc::<InterimQueue>::default(), Arc::new(Task));
        let waker = task.clone().into();
        queue.watch(&Context::from_waker(&waker));
        queue.over();
        drop(waker);
        assert_eq!(Arc::strong_count(&task), 1);
    }

    #[test]
    fn interim_answers_end_with_the_answer_and_are_bounded() {
        let stream = Arc::<InterimQueue>::default();
        let sender = Interim::on(&stream).sender();
        let statuses = || stream.take().iter().map(|answer| answer.status().as_u16()).collect::<Vec<_>>();
        for _ in 0..2 * MAX_INTERIMS {
            sender.send(StatusCode::EARLY_HINTS, HeaderMap::new());
        }
        // A client that waits for 100 gets it, whatever the upstream sent before.
        stream.go_on();
        let told = statuses();
        assert_eq!((told.len(), told[0], told[MAX_INTERIMS]), (MAX_INTERIMS + 1, 103, 100));
        stream.over();
        stream.go_on();
        sender.send(StatusCode::EARLY_HINTS, HeaderMap::new());
        assert!(statuses().is_empty());
        let large = Arc::<InterimQueue>::default();
        let half = HeaderMap::from_iter([(http::header::LINK, "x".repeat(MAX_INTERIM_BYTES / 2 - 8).parse().unwrap())]);
        for _ in 0..3 {
            Interim::on(&large).sender().send(StatusCode::EARLY_HINTS, half.clone());
        }
        assert_eq!(large.take().len(), 2);
    }
}
