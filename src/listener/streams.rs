//! The streams of an HTTP/2 connection: each is a task of its own, and is reset when its client takes nothing of its answer for
//! too long, whatever moves on the others. A window that stays closed stalls an answer without stalling the socket.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use hyper::rt::Executor;

use crate::deadline::Deadline;

tokio::task_local! {
    /// The clock of the stream that a task carries.
    static CLOCK: Arc<StreamClock>;
}

/// What the body of an answer tells whoever watches its stream.
#[derive(Debug, Default)]
pub(super) struct StreamClock {
    /// A piece waits for the client.
    owing: AtomicBool,
    /// Pieces so far.
    pieces: AtomicUsize,
}

impl StreamClock {
    /// The one of the stream that this task carries; `None` on HTTP/1.1.
    pub(super) fn current() -> Option<Arc<Self>> {
        CLOCK.try_with(Arc::clone).ok()
    }

    pub(super) fn handed(&self) {
        self.pieces.fetch_add(1, Ordering::Relaxed);
        self.owing.store(true, Ordering::Relaxed);
    }

    pub(super) fn taken(&self) {
        self.owing.store(false, Ordering::Relaxed);
    }
}

/// Runs the streams of one connection.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    patience: Duration,
}

impl Streams {
    /// `patience`: how long a client may leave a piece of an answer where it is.
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience }
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let clock = Arc::new(StreamClock::default());
        tokio::spawn(CLOCK.scope(clock.clone(), watch(stream, clock, self.patience)));
    }
}

/// Carries a stream to its end, or drops it, which resets it, when it is stuck.
async fn watch<F: Future>(stream: F, clock: Arc<StreamClock>, patience: Duration) {
    let mut stream = pin!(stream);
    let (mut stall, mut pieces) = (Deadline::default(), 0);
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let handed = clock.pieces.load(Ordering::Relaxed);
        let owing = clock.owing.load(Ordering::Relaxed);
        if !owing || std::mem::replace(&mut pieces, handed) != handed {
            stall.disarm();
        }
        if !owing {
            return Poll::Pending;
        }
        ready!(stall.poll(cx, patience));
        tracing::debug!("a client takes nothing of its answer: the stream is reset");
        Poll::Ready(())
    })
    .await;
}
