//! Interim answers (1xx) on their way to a client. On HTTP/1.1 hyper's server does not send any but 100, so the gate writes them:
//! between two answers, when hyper has handed over all that came before, and not a byte of the answer that they announce. On HTTP/2
//! the task that carries the stream sends them.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::gate::Signals;

/// Interim answers that one request may get.
const MOST: usize = 16;
/// Bytes of all of them.
const MOST_BYTES: usize = 64 << 10;

/// What waits on a connection of HTTP/1.1.
#[derive(Debug, Default)]
pub(super) struct Interims {
    waiting: Mutex<Waiting>,
    is_any: AtomicBool,
    /// The exchange, to be woken when there is something to write, and when it is written.
    exchange: AtomicWaker,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Which exchange they announce the answer of, if it still is to come. There is one at a time on a connection of HTTP/1.1.
    open: Option<u64>,
    exchanges: u64,
    told: Told,
}

/// An exchange whose client can be told interim answers, until it is over.
#[derive(Debug)]
pub struct Interim {
    way: Way,
}

/// Tells them.
#[derive(Debug)]
pub struct InterimSender {
    way: Way,
}

#[derive(Debug, Clone)]
enum Way {
    /// On HTTP/1.1: through the gate, in the exchange with this number.
    Gate(Arc<Signals>, u64),
    Stream(Arc<StreamInterims>),
}

/// What waits on a stream of HTTP/2: the task that carries the stream sends it.
#[derive(Debug, Default)]
pub(super) struct StreamInterims {
    waiting: Mutex<StreamWaiting>,
    stream: AtomicWaker,
}

#[derive(Debug, Default)]
struct StreamWaiting {
    answers: Vec<Response<()>>,
    told: Told,
    /// The answer proper has been given.
    is_over: bool,
}

/// How many there were, and how many bytes they had.
#[derive(Debug, Default)]
struct Told {
    count: usize,
    bytes: usize,
}

impl Told {
    /// Whether there may be one more; it is counted then.
    fn admits(&mut self, bytes: usize) -> bool {
        let admitted = self.count < MOST && self.bytes + bytes <= MOST_BYTES;
        if admitted {
            (self.count, self.bytes) = (self.count + 1, self.bytes + bytes);
        }
        admitted
    }
}

impl Interims {
    /// Whether something is to be written, or being written.
    pub(super) fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Acquire)
    }

    /// What is to be written next.
    pub(super) fn take(&self) -> Bytes {
        std::mem::take(&mut self.lock().bytes).into()
    }

    /// What was taken is written.
    pub(super) fn written(&self) {
        let waiting = self.lock();
        if waiting.bytes.is_empty() {
            self.is_any.store(false, Ordering::Release);
        }
        drop(waiting);
        self.exchange.wake();
    }

    fn push(&self, exchange: u64, answer: &[u8]) {
        let mut waiting = self.lock();
        if waiting.open != Some(exchange) || !waiting.told.admits(answer.len()) {
            return;
        }
        waiting.bytes.extend_from_slice(answer);
        self.is_any.store(true, Ordering::Release);
        drop(waiting);
        self.exchange.wake();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamInterims {
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

    /// Tells the client to send its body (RFC 9110 §10.1.1).
    pub(super) fn go_on(&self) {
        self.push(StatusCode::CONTINUE, HeaderMap::new(), |_| true);
    }

    fn push(&self, status: StatusCode, headers: HeaderMap, admits: impl FnOnce(&mut Told) -> bool) {
        let mut waiting = self.lock();
        if waiting.is_over || !admits(&mut waiting.told) {
            return;
        }
        let mut answer = Response::new(());
        (*answer.status_mut(), *answer.headers_mut()) = (status, headers);
        waiting.answers.push(answer);
        drop(waiting);
        self.stream.wake();
    }

    fn lock(&self) -> MutexGuard<'_, StreamWaiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Interim {
    /// An exchange begins on this connection of HTTP/1.1.
    pub(super) fn open(signals: &Arc<Signals>) -> Self {
        let mut waiting = signals.interims.lock();
        waiting.exchanges += 1;
        (waiting.open, waiting.told) = (Some(waiting.exchanges), Told::default());
        Self { way: Way::Gate(signals.clone(), waiting.exchanges) }
    }

    /// An exchange is carried by this stream of HTTP/2.
    pub(super) fn on(stream: &Arc<StreamInterims>) -> Self {
        Self { way: Way::Stream(stream.clone()) }
    }

    /// What tells the client of this exchange.
    #[must_use]
    pub fn teller(&self) -> InterimSender {
        InterimSender { way: self.way.clone() }
    }

    /// Waits for the answer, on the task of the exchange. On HTTP/1.1, what was told before it came is written when this returns, or
    /// the connection has broken off: the client has the time that it has for every answer. A stream sends it before the answer.
    pub async fn beside<F: Future>(&self, mut answer: Pin<&mut F>) -> F::Output {
        let Way::Gate(signals, _) = &self.way else { return answer.await };
        let interims = &signals.interims;
        let output = poll_fn(|cx| {
            interims.exchange.register(cx.waker());
            answer.as_mut().poll(cx)
        });
        let output = output.await;
        let written = poll_fn(|cx| {
            interims.exchange.register(cx.waker());
            if interims.is_any() { Poll::Pending } else { Poll::Ready(()) }
        });
        written.await;
        output
    }
}

impl Drop for Interim {
    fn drop(&mut self) {
        let Way::Gate(signals, number) = &self.way else { return };
        // A waker keeps the memory of its task, even when that has ended: a call outlives the task of its connection.
        drop(signals.interims.exchange.take());
        let mut waiting = signals.interims.lock();
        if waiting.open == Some(*number) {
            waiting.open = None;
            if !std::mem::take(&mut waiting.bytes).is_empty() {
                // The gate looks for itself whether it is in the middle of one.
                signals.interims.is_any.store(false, Ordering::Release);
            }
        }
    }
}

impl InterimSender {
    /// Tells an interim answer. One that comes too late, or is one too many, is dropped.
    pub fn tell(&self, status: StatusCode, headers: HeaderMap) {
        match &self.way {
            Way::Gate(signals, number) => signals.interims.push(*number, &head(status, &headers)),
            Way::Stream(stream) => {
                // As much as on HTTP/1.1.
                let length = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
                let bytes = headers.iter().map(length).sum();
                stream.push(status, headers, |told| told.admits(bytes));
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

    use super::*;

    /// A teller's answers on HTTP/1.1, by what they say.
    fn tell(teller: &InterimSender, text: &[u8]) {
        let Way::Gate(signals, number) = &teller.way else { panic!("a teller of HTTP/1.1") };
        signals.interims.push(*number, text);
    }

    fn told(signals: &Signals) -> Vec<u8> {
        let told = signals.interims.take().to_vec();
        signals.interims.written();
        told
    }

    #[test]
    fn an_exchange_is_told_until_its_answer_comes_and_no_other_is() {
        let signals = Arc::<Signals>::default();
        let first = Interim::open(&signals);
        let late = first.teller();
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
        tell(&second.teller(), b"c");
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
    fn an_exchange_gets_so_many_and_no_more() {
        let signals = Arc::<Signals>::default();
        let few = Interim::open(&signals);
        for _ in 0..2 * MOST {
            tell(&few.teller(), b"x");
        }
        assert_eq!(told(&signals).len(), MOST);
        drop(few);
        let large = Interim::open(&signals);
        for _ in 0..3 {
            tell(&large.teller(), &[b'x'; MOST_BYTES / 2]);
        }
        assert_eq!(told(&signals).len(), MOST_BYTES);
    }

    #[tokio::test]
    async fn an_answer_waits_until_what_came_before_it_is_written() {
        let signals = Arc::<Signals>::default();
        let interim = Interim::open(&signals);
        let answer = pin!(async { tell(&interim.teller(), b"x") });
        let mut answer = pin!(interim.beside(answer));
        assert!(answer.as_mut().now_or_never().is_none());
        assert_eq!(told(&signals), b"x");
        assert!(answer.now_or_never().is_some());
    }

    #[test]
    fn a_stream_is_told_until_its_answer_comes() {
        let stream = Arc::<StreamInterims>::default();
        let teller = Interim::on(&stream).teller();
        let statuses = || stream.take().iter().map(|answer| answer.status().as_u16()).collect::<Vec<_>>();
        for _ in 0..2 * MOST {
            teller.tell(StatusCode::EARLY_HINTS, HeaderMap::new());
        }
        // Who waits to be asked for a body is asked, whatever the upstream said before.
        stream.go_on();
        let told = statuses();
        assert_eq!((told.len(), told[0], told[MOST]), (MOST + 1, 103, 100));
        stream.over();
        stream.go_on();
        teller.tell(StatusCode::EARLY_HINTS, HeaderMap::new());
        assert!(statuses().is_empty());
        let large = Arc::<StreamInterims>::default();
        let half = HeaderMap::from_iter([(http::header::LINK, "x".repeat(MOST_BYTES / 2 - 8).parse().unwrap())]);
        for _ in 0..3 {
            Interim::on(&large).teller().tell(StatusCode::EARLY_HINTS, half.clone());
        }
        assert_eq!(large.take().len(), 2);
    }
}
