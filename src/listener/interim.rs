//! Interim answers (1xx) on their way to a client. On HTTP/1.1 hyper's server does not send any but 100, so the gate writes them:
//! between two answers, when hyper has handed over all that came before, and not a byte of the answer that they announce. On HTTP/2
//! the task that carries the stream sends them.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::interim_queue::InterimBudget;
use super::signals::Signals;

/// A request whose interim answers are passed on until its answer comes.
#[derive(Debug)]
pub struct Interim {
    path: InterimPath,
}

/// Tells them.
#[derive(Debug)]
pub struct InterimSender {
    path: InterimPath,
}

#[derive(Debug, Clone)]
enum InterimPath {
    /// On HTTP/1.1: through the gate, in the exchange with this number.
    Gate(Arc<Signals>, u64),
    Stream(Arc<StreamQueue>),
}

/// What waits on a stream of HTTP/2: the task that carries the stream sends it. And how the drain reaches that task.
#[derive(Debug, Default)]
pub(super) struct StreamQueue {
    waiting: Mutex<QueuedAnswers>,
    stream: AtomicWaker,
    is_call: AtomicBool,
    is_cut: AtomicBool,
}

#[derive(Debug, Default)]
struct QueuedAnswers {
    answers: Vec<Response<()>>,
    budget: InterimBudget,
    /// The answer proper has been given.
    is_over: bool,
}

impl StreamQueue {
    /// To be called by the task that carries the stream: it is woken when there is something to send.
    pub(super) fn watch(&self, cx: &Context<'_>) {
        self.stream.register(cx.waker());
    }

    /// What is to be sent next.
    pub(super) fn take(&self) -> Vec<Response<()>> {
        std::mem::take(&mut self.lock().answers)
    }

    /// The answer proper comes: from here on nothing is told, and nobody woken.
    pub(super) fn over(&self) {
        drop(self.stream.take());
        self.lock().is_over = true;
    }

    /// The request is a call, which goes on when requests are cut.
    fn becomes_call(&self) {
        self.is_call.store(true, Ordering::Release);
    }

    /// Cuts the request, unless it is a call.
    pub(super) fn cut(&self) {
        if !self.is_call.load(Ordering::Acquire) {
            self.is_cut.store(true, Ordering::Release);
            self.stream.wake();
        }
    }

    /// Whether it was cut. The task that has called [`StreamQueue::watch`] is woken for it.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }

    /// Tells the client to send its body (RFC 9110 §10.1.1).
    pub(super) fn go_on(&self) {
        self.push(StatusCode::CONTINUE, HeaderMap::new(), |_| true);
    }

    fn push(&self, status: StatusCode, headers: HeaderMap, admits: impl FnOnce(&mut InterimBudget) -> bool) {
        let mut waiting = self.lock();
        if waiting.is_over || !admits(&mut waiting.budget) {
            return;
        }
        let mut answer = Response::new(());
        (*answer.status_mut(), *answer.headers_mut()) = (status, headers);
        waiting.answers.push(answer);
        drop(waiting);
        self.stream.wake();
    }

    fn lock(&self) -> MutexGuard<'_, QueuedAnswers> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Interim {
    /// An exchange begins on this connection of HTTP/1.1.
    pub(super) fn open(signals: &Arc<Signals>) -> Self {
        Self { path: InterimPath::Gate(signals.clone(), signals.interims.begin()) }
    }

    /// An exchange is carried by this stream of HTTP/2.
    pub(super) fn on(stream: &Arc<StreamQueue>) -> Self {
        Self { path: InterimPath::Stream(stream.clone()) }
    }

    /// What tells the client of this exchange.
    #[must_use]
    pub fn sender(&self) -> InterimSender {
        InterimSender { path: self.path.clone() }
    }

    /// The request is a call, which goes on when requests are cut. On HTTP/1.1 its connection knows that.
    pub(super) fn becomes_call(&self) {
        if let InterimPath::Stream(stream) = &self.path {
            stream.becomes_call();
        }
    }

    /// Waits for the answer, on the task of the exchange. On HTTP/1.1, what was told before it came is written when this returns, or
    /// the connection has broken off: the client has the time that it has for every answer. A stream sends it before the answer.
    pub async fn beside<F: Future>(&self, mut answer: Pin<&mut F>) -> F::Output {
        let InterimPath::Gate(signals, _) = &self.path else { return answer.await };
        let interims = &signals.interims;
        let output = poll_fn(|cx| {
            interims.watch(cx);
            answer.as_mut().poll(cx)
        });
        let output = output.await;
        let written = poll_fn(|cx| {
            interims.watch(cx);
            if interims.is_any() { Poll::Pending } else { Poll::Ready(()) }
        });
        written.await;
        output
    }
}

impl Drop for Interim {
    fn drop(&mut self) {
        if let InterimPath::Gate(signals, number) = &self.path {
            signals.interims.end(*number);
        }
    }
}

impl InterimSender {
    /// Tells an interim answer. One that comes too late, or is one too many, is dropped.
    pub fn send(&self, status: StatusCode, headers: HeaderMap) {
        match &self.path {
            InterimPath::Gate(signals, number) => signals.interims.push(*number, &head(status, &headers)),
            InterimPath::Stream(stream) => {
                // As much as on HTTP/1.1.
                let length = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
                let bytes = headers.iter().map(length).sum();
                stream.push(status, headers, |budget| budget.admits(bytes));
            }
        }
    }
}

/// As it stands on the wire.
fn head(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let mut head = Vec::with_capacity(256);
    let reason = status.canonical_reason().unwrap_or_default();
    head.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).as_bytes());
    for (name, value) in headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::super::interim_queue::{MAX_INTERIM_BYTES, MAX_INTERIMS};
    use super::*;

    /// A teller's answers on HTTP/1.1, by what they say.
    fn tell(sender: &InterimSender, text: &[u8]) {
        let InterimPath::Gate(signals, number) = &sender.path else { panic!("a teller of HTTP/1.1") };
        signals.interims.push(*number, text);
    }

    fn told(signals: &Signals) -> Vec<u8> {
        let told = signals.interims.take().to_vec();
        signals.interims.written();
        told
    }

    #[test]
    fn interim_answers_end_with_the_answer_of_their_request() {
        let signals = Arc::<Signals>::default();
        let first = Interim::open(&signals);
        let late = first.sender();
        tell(&late, b"a");
        tell(&late, b"b");
        assert!(signals.interims.is_any());
        assert_eq!(told(&signals), b"ab");
        assert!(!signals.interims.is_any());
        tell(&late, b"not written in time");
        drop(first);
        assert!(!signals.interims.is_any());
        tell(&late, b"too late");
        let second = Interim::open(&signals);
        tell(&late, b"for another");
        assert_eq!(told(&signals), b"");
        tell(&second.sender(), b"c");
        assert_eq!(told(&signals), b"c");
    }

    #[test]
    fn an_exchange_that_is_over_lets_go_of_its_task() {
        struct Task;
        impl std::task::Wake for Task {
            fn wake(self: Arc<Self>) {}
        }
        let (signals, task) = (Arc::<Signals>::default(), Arc::new(Task));
        let waker = task.clone().into();
        let interim = Interim::open(&signals);
        {
            let never = pin!(std::future::pending::<()>());
            let answer = pin!(interim.beside(never));
            assert!(answer.poll(&mut std::task::Context::from_waker(&waker)).is_pending());
        }
        drop((waker, interim));
        assert_eq!(Arc::strong_count(&task), 1);
    }

    #[test]
    fn interim_answers_of_a_request_are_bounded() {
        let signals = Arc::<Signals>::default();
        let few = Interim::open(&signals);
        for _ in 0..2 * MAX_INTERIMS {
            tell(&few.sender(), b"x");
        }
        assert_eq!(told(&signals).len(), MAX_INTERIMS);
        drop(few);
        let large = Interim::open(&signals);
        for _ in 0..3 {
            tell(&large.sender(), &[b'x'; MAX_INTERIM_BYTES / 2]);
        }
        assert_eq!(told(&signals).len(), MAX_INTERIM_BYTES);
    }

    #[tokio::test]
    async fn an_answer_waits_until_what_came_before_it_is_written() {
        let signals = Arc::<Signals>::default();
        let interim = Interim::open(&signals);
        let answer = pin!(async { tell(&interim.sender(), b"x") });
        let mut answer = pin!(interim.beside(answer));
        assert!(answer.as_mut().now_or_never().is_none());
        assert_eq!(told(&signals), b"x");
        assert!(answer.now_or_never().is_some());
    }

    #[test]
    fn interim_answers_of_a_stream_end_with_its_answer() {
        let stream = Arc::<StreamQueue>::default();
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
        let large = Arc::<StreamQueue>::default();
        let half = HeaderMap::from_iter([(http::header::LINK, "x".repeat(MAX_INTERIM_BYTES / 2 - 8).parse().unwrap())]);
        for _ in 0..3 {
            Interim::on(&large).sender().send(StatusCode::EARLY_HINTS, half.clone());
        }
        assert_eq!(large.take().len(), 2);
    }
}
