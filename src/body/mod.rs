//! Bodies on their way through: relayed frame by frame, never collected, never copied.

mod arriving;
mod copied;
mod observed;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::oneshot;

use crate::config::HeaderEdits;
use crate::deadline::{Deadline, End};

use copied::Copying;

pub use arriving::{Ask, CallHalves, IncomingBody, StreamBody};
pub(crate) use copied::Copied;
pub use observed::{BodyObserver, ObservedBody};

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// No frame came for the configured time.
    #[error("the body made no progress for {0:?}")]
    Stalled(Duration),
    /// More bytes came than allowed.
    #[error("the body is longer than {0} bytes")]
    TooLarge(u64),
    /// It was not whole when it had to be.
    #[error("the answer was not whole within {0:?}")]
    Late(Duration),
    /// Whom it is for is no longer entitled to it: why, for the log alone.
    #[error("{0}")]
    Revoked(&'static str),
    /// The connection that it came from failed.
    #[error("the body broke off")]
    Broken(#[source] hyper::Error),
    /// The stream of an HTTP/2 upstream that it came on was reset before its end, as if nothing were amiss.
    #[error("the body broke off: its stream was reset before its end")]
    Unfinished,
    /// The stream of an HTTP/2 client that it came on was reset, or its connection failed.
    #[error("the body broke off")]
    Reset(#[source] h2::Error),
}

/// The kind of a [`BodyError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// [`BodyError::Stalled`].
    Stalled,
    /// [`BodyError::TooLarge`].
    TooLarge,
    /// [`BodyError::Broken`], [`BodyError::Unfinished`], [`BodyError::Reset`].
    Broken,
}

impl BodyError {
    fn fault(&self) -> BodyFault {
        match self {
            Self::Stalled(_) => BodyFault::Stalled,
            Self::TooLarge(_) => BodyFault::TooLarge,
            // What a client sends is not withdrawn and never late, what it is sent is.
            Self::Broken(_) | Self::Unfinished | Self::Reset(_) | Self::Revoked(_) | Self::Late(_) => BodyFault::Broken,
        }
    }
}

/// A body that Callgate sends, either way.
pub enum Body {
    /// Nothing.
    Empty,
    /// One piece.
    Full(Bytes),
    /// What arrives from the other side.
    Relay(Relay),
}

/// Takes off what may not go along in trailers, and what the route takes off or sets by itself.
pub type CleanTrailers = fn(&mut HeaderMap, Option<&HeaderEdits>);

/// A body that arrives from one side and leaves on the other, with a bound on its length and on its silence.
pub struct Relay {
    incoming: IncomingBody,
    /// The longest silence; `None`: no bound.
    idle: Option<Duration>,
    silence: Deadline,
    limit: u64,
    seen: u64,
    clean: CleanTrailers,
    /// What the route changes, if it changes anything: most bodies need not count who knows it.
    edits: Option<Arc<HeaderEdits>>,
    copying: Option<Box<Copying>>,
    progress: Option<Arc<Progress>>,
    end: Option<End>,
    /// Whether the progress is the other direction's too.
    joint: bool,
    /// Let go of when the body is.
    _hold: Option<BodyGuard>,
}

/// Something that is to last as long as a body does.
pub type BodyGuard = Box<dyn Send>;

/// When a body, a call or a connection last moved, and how a body broke off: not every error of hyper's that this causes tells.
#[derive(Debug)]
pub struct Progress {
    began: Instant,
    last_ms: AtomicU64,
    /// The next piece is awaited from its sender.
    awaited: AtomicBool,
    fault: OnceLock<BodyFault>,
}

impl Progress {
    /// Begins now.
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            last_ms: AtomicU64::new(0),
            awaited: AtomicBool::new(false),
            fault: OnceLock::new(),
        }
    }

    /// Something moved.
    pub(crate) fn note(&self) {
        // 64 bits of milliseconds outlast every body.
        self.last_ms.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.awaited.store(false, Ordering::Relaxed);
    }

    /// The receiver would take more, and there is none.
    fn awaits(&self) {
        self.awaited.store(true, Ordering::Relaxed);
    }

    /// How long the receiver has left everybody waiting: nothing has moved, and not for want of a next piece.
    #[must_use]
    pub fn hesitation(&self) -> Duration {
        if self.awaited.load(Ordering::Relaxed) { Duration::ZERO } else { self.silence() }
    }

    /// How the body broke off, if it did.
    #[must_use]
    pub fn fault(&self) -> Option<BodyFault> {
        self.fault.get().copied()
    }

    /// How long nothing has moved.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }
}

impl Body {
    /// Relays `incoming`: at most `limit` bytes, and no silence longer than `idle`, if that is given.
    #[must_use]
    pub fn relay(
        incoming: IncomingBody,
        idle: Option<Duration>,
        limit: u64,
        clean: CleanTrailers,
        edits: &Arc<HeaderEdits>,
    ) -> Self {
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        Self::Relay(Relay {
            incoming,
            idle,
            silence: Deadline::default(),
            limit,
            seen: 0,
            clean,
            edits: (!edits.is_empty()).then(|| edits.clone()),
            copying: None,
            progress: None,
            end: None,
            joint: false,
            _hold: None,
        })
    }

    /// As [`Body::relay`], and tells when the body last moved; `None` when there is no body. `hold` lasts as long as the body.
    #[must_use]
    pub fn upload(
        incoming: IncomingBody,
        idle: Option<Duration>,
        limit: u64,
        clean: CleanTrailers,
        edits: &Arc<HeaderEdits>,
        hold: impl FnOnce() -> BodyGuard,
    ) -> (Self, Option<Arc<Progress>>) {
        match Self::relay(incoming, idle, limit, clean, edits) {
            Self::Relay(relay) => {
                let progress = Arc::new(Progress::new());
                (Self::Relay(Relay { progress: Some(progress.clone()), _hold: Some(hold()), ..relay }), Some(progress))
            }
            whole @ (Self::Empty | Self::Full(_)) => (whole, None),
        }
    }
}

impl Body {
    /// Breaks off what is not whole at `end`.
    #[must_use]
    pub(crate) fn until(self, end: Option<End>) -> Self {
        match self {
            Self::Relay(relay) => Self::Relay(Relay { end, ..relay }),
            whole @ (Self::Empty | Self::Full(_)) => whole,
        }
    }

    /// Keeps a copy of what passes, of at most `most` bytes, and hands it over when the body has ended well; `None` when there is no
    /// body. Trailers are not in it.
    pub(crate) fn copy(&mut self, most: usize) -> Option<oneshot::Receiver<Copied>> {
        let Self::Relay(relay) = self else { return None };
        let (copying, receiver) = Copying::new(most);
        relay.copying = Some(Box::new(copying));
        Some(receiver)
    }

    /// Measures the silence of a body together with that of the body in the other direction: one is silent while the other speaks.
    #[must_use]
    pub fn beside(self, other: &Arc<Progress>) -> Self {
        match self {
            Self::Relay(relay) => Self::Relay(Relay { progress: Some(other.clone()), joint: true, ..relay }),
            whole @ (Self::Empty | Self::Full(_)) => whole,
        }
    }
}

impl Relay {
    fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = ready!(self.poll_guarded(cx));
        if let (Some(Err(error)), Some(progress)) = (&polled, &self.progress) {
            let _ = progress.fault.set(error.fault());
        }
        if let Some(copying) = self.copying.take() {
            self.copying = self.copied(copying, &polled);
        }
        Poll::Ready(polled)
    }

    /// Goes on with a copy; `None` when that is over.
    fn copied(
        &self,
        mut copying: Box<Copying>,
        polled: &Option<Result<Frame<Bytes>, BodyError>>,
    ) -> Option<Box<Copying>> {
        let ended = match polled {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    copying = copying.add(data)?;
                }
                // Nobody asks on behind the last piece of a known length.
                frame.is_trailers() || self.incoming.is_end_stream()
            }
            Some(Err(_)) => return None,
            None => true,
        };
        if ended {
            copying.finish();
            return None;
        }
        Some(copying)
    }

    fn poll_guarded(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(Poll::Ready(after)) = self.end.as_mut().map(|end| end.poll(cx)) {
            return Poll::Ready(Some(Err(BodyError::Late(after))));
        }
        match self.incoming.poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                self.silence.disarm();
                if let Some(trailers) = frame.trailers_mut() {
                    (self.clean)(trailers, self.edits.as_deref());
                }
                if let Some(progress) = &self.progress {
                    progress.note();
                }
                if let Some(data) = frame.data_ref() {
                    self.seen += data.len() as u64;
                    if self.seen > self.limit {
                        return Poll::Ready(Some(Err(BodyError::TooLarge(self.limit))));
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
            Poll::Ready(None) => {
                if let Some(progress) = &self.progress {
                    progress.note();
                }
                Poll::Ready(None)
            }
            Poll::Pending => {
                if let Some(progress) = &self.progress {
                    progress.awaits();
                }
                let Some(idle) = self.idle else { return Poll::Pending };
                ready!(self.poll_silence(cx, idle));
                Poll::Ready(Some(Err(BodyError::Stalled(idle))))
            }
        }
    }

    /// Ready when nothing has moved for so long.
    fn poll_silence(&mut self, cx: &mut Context<'_>, idle: Duration) -> Poll<()> {
        let mut wait = idle;
        loop {
            ready!(self.silence.poll(cx, wait));
            let silence = self.progress.as_ref().filter(|_| self.joint).map_or(idle, |progress| progress.silence());
            match idle.checked_sub(silence) {
                Some(left) if !left.is_zero() => {
                    wait = left;
                    self.silence.disarm();
                }
                Some(_) | None => return Poll::Ready(()),
            }
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Body::Empty => Poll::Ready(None),
            whole @ Body::Full(_) => match std::mem::replace(whole, Body::Empty) {
                Body::Full(bytes) if !bytes.is_empty() => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Body::Full(_) | Body::Empty | Body::Relay(_) => Poll::Ready(None),
            },
            Body::Relay(relay) => relay.poll_relay(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Full(bytes) => bytes.is_empty(),
            Body::Relay(relay) => relay.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Empty => SizeHint::with_exact(0),
            Body::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Body::Relay(relay) => relay.incoming.size_hint(),
        }
    }
}
