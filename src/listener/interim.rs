//! Interim answers (1xx) on their way to a client of HTTP/1.1. hyper's server does not send any but 100, so the gate writes them:
//! between two answers, when hyper has handed over all that came before, and not a byte of the answer that they announce.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use futures_util::task::AtomicWaker;

use super::gate::Signals;

/// Interim answers that one request may get.
const MOST: usize = 16;
/// Bytes of all of them.
const MOST_BYTES: usize = 64 << 10;

/// What waits on a connection.
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
    /// How many there were, and how many bytes they had.
    told: (usize, usize),
}

/// An exchange whose client can be told interim answers, until it is dropped.
#[derive(Debug)]
pub struct Interim {
    signals: Arc<Signals>,
    number: u64,
}

/// Tells them.
#[derive(Debug)]
pub struct Teller {
    signals: Arc<Signals>,
    number: u64,
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

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Interim {
    /// An exchange begins on this connection.
    pub(super) fn open(signals: &Arc<Signals>) -> Self {
        let mut waiting = signals.interims.lock();
        waiting.exchanges += 1;
        (waiting.open, waiting.told) = (Some(waiting.exchanges), (0, 0));
        Self { signals: signals.clone(), number: waiting.exchanges }
    }

    /// What tells the client of this exchange.
    #[must_use]
    pub fn teller(&self) -> Teller {
        Teller { signals: self.signals.clone(), number: self.number }
    }

    /// Waits for the answer, on the task of the connection. What was told before it came is written when this returns, or the
    /// connection has broken off: the client has the time that it has for every answer.
    pub async fn beside<F: Future>(&self, mut answer: Pin<&mut F>) -> F::Output {
        let interims = &self.signals.interims;
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
        // A waker keeps the memory of its task, even when that has ended: a call outlives the task of its connection.
        drop(self.signals.interims.exchange.take());
        let mut waiting = self.signals.interims.lock();
        if waiting.open == Some(self.number) {
            waiting.open = None;
            if !std::mem::take(&mut waiting.bytes).is_empty() {
                // The gate looks for itself whether it is in the middle of one.
                self.signals.interims.is_any.store(false, Ordering::Release);
            }
        }
    }
}

impl Teller {
    /// Tells an interim answer, as it stands on the wire. One that comes too late, or is one too many, is dropped.
    pub fn tell(&self, answer: &[u8]) {
        let interims = &self.signals.interims;
        let mut waiting = interims.lock();
        let (count, bytes) = waiting.told;
        if waiting.open != Some(self.number) || count >= MOST || bytes + answer.len() > MOST_BYTES {
            return;
        }
        waiting.told = (count + 1, bytes + answer.len());
        waiting.bytes.extend_from_slice(answer);
        interims.is_any.store(true, Ordering::Release);
        drop(waiting);
        interims.exchange.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

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
        late.tell(b"a");
        late.tell(b"b");
        assert!(signals.interims.is_any());
        assert_eq!(told(&signals), b"ab");
        assert!(!signals.interims.is_any());
        late.tell(b"not written in time");
        drop(first);
        assert!(!signals.interims.is_any());
        late.tell(b"too late");
        let second = Interim::open(&signals);
        late.tell(b"for another");
        assert_eq!(told(&signals), b"");
        second.teller().tell(b"c");
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
            few.teller().tell(b"x");
        }
        assert_eq!(told(&signals).len(), MOST);
        drop(few);
        let large = Interim::open(&signals);
        for _ in 0..3 {
            large.teller().tell(&[b'x'; MOST_BYTES / 2]);
        }
        assert_eq!(told(&signals).len(), MOST_BYTES);
    }

    #[tokio::test]
    async fn an_answer_waits_until_what_came_before_it_is_written() {
        let signals = Arc::<Signals>::default();
        let interim = Interim::open(&signals);
        let answer = pin!(async { interim.teller().tell(b"x") });
        let mut answer = pin!(interim.beside(answer));
        assert!(answer.as_mut().now_or_never().is_none());
        assert_eq!(told(&signals), b"x");
        assert!(answer.now_or_never().is_some());
    }
}
