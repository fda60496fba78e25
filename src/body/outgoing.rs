//! Bodies that Callgate sends. What arrives on one side leaves on the other, frame by frame: never collected, never copied.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::oneshot;

use crate::config::{HeaderEdits, UploadBounds};
use crate::deadline::Deadline;

use super::copy::{BodyCopy, Copying};
use super::error::BodyError;
use super::incoming::IncomingBody;
use super::pace::Pace;
use super::progress::Progress;

/// Takes off trailers that may not pass, and applies the route's edits.
type CleanTrailers = fn(&mut HeaderMap, Option<&HeaderEdits>);

/// Something that lasts as long as a body does.
pub(crate) type BodyGuard = Box<dyn Send>;

/// A body that Callgate sends, either way.
pub enum Body {
    /// Nothing.
    Empty,
    /// One piece.
    Full(Bytes),
    /// Whatever arrives from the other side. Boxed: a body is moved many times on its way, and this is large.
    Relay(Box<Relay>),
}

/// A body that passes, with a bound on its length and on its silence.
pub struct Relay {
    incoming: IncomingBody,
    /// The longest silence; `None`: no bound.
    max_silence: Option<Duration>,
    silence: Deadline,
    max_bytes: u64,
    seen: u64,
    clean: CleanTrailers,
    /// `None` where the route changes nothing: most bodies need not count its references.
    edits: Option<Arc<HeaderEdits>>,
    copying: Option<Box<Copying>>,
    progress: Option<Arc<Progress>>,
    /// Whether the progress is the other direction's too.
    joint: bool,
    /// How long it may take as a whole.
    whole: Option<(Deadline, Duration)>,
    /// How slowly a client may send it.
    pace: Option<Pace>,
    _guard: Option<BodyGuard>,
}

impl Body {
    /// Relays `incoming`: at most `max_bytes`, and no silence longer than `max_silence`, if that is given. `clean` takes off trailers
    /// that may not pass; `edits` are the route's.
    pub(crate) fn relay(
        incoming: IncomingBody,
        max_silence: Option<Duration>,
        max_bytes: u64,
        clean: CleanTrailers,
        edits: &Arc<HeaderEdits>,
    ) -> Self {
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        Self::Relay(Box::new(Relay {
            incoming,
            max_silence,
            silence: Deadline::default(),
            max_bytes,
            seen: 0,
            clean,
            edits: (!edits.is_empty()).then(|| edits.clone()),
            copying: None,
            progress: None,
            joint: false,
            whole: None,
            pace: None,
            _guard: None,
        }))
    }

    /// Measures when the body moves; `None` when there is no body. What `guard` makes is dropped with the body.
    pub(crate) fn track(&mut self, guard: impl FnOnce() -> BodyGuard) -> Option<Arc<Progress>> {
        let Self::Relay(relay) = self else { return None };
        relay._guard = Some(guard());
        Some(relay.progress.insert(Arc::new(Progress::new())).clone())
    }

    /// Breaks off what is not whole at this deadline, which the answer's head has waited under, too; it was so long.
    #[must_use]
    pub(crate) fn until(mut self, deadline: Option<(Deadline, Duration)>) -> Self {
        if let Self::Relay(relay) = &mut self {
            relay.whole = deadline;
        }
        self
    }

    /// Breaks off what a client sends too slowly.
    #[must_use]
    pub(crate) fn paced(mut self, bounds: UploadBounds) -> Self {
        if let Self::Relay(relay) = &mut self {
            relay.pace = Some(Pace::new(bounds));
        }
        self
    }

    /// Keeps a copy of what passes, of at most `max_bytes`, and hands it over when the body has ended well; `None` when there is no
    /// body. Trailers are not in it.
    pub(crate) fn copy(&mut self, max_bytes: usize) -> Option<oneshot::Receiver<BodyCopy>> {
        let Self::Relay(relay) = self else { return None };
        let (copying, receiver) = Copying::new(max_bytes);
        relay.copying = Some(Box::new(copying));
        Some(receiver)
    }

    /// Whether all of it is there: nothing more has to come from the other side.
    pub(crate) fn is_whole(&self) -> bool {
        match self {
            Self::Empty | Self::Full(_) => true,
            Self::Relay(relay) => relay.incoming.is_whole(),
        }
    }

    /// Measures the silence of a body together with that of the body in the other direction: one is silent while the other
    /// speaks.
    #[must_use]
    pub(crate) fn beside(mut self, other: &Arc<Progress>) -> Self {
        if let Self::Relay(relay) = &mut self {
            (relay.progress, relay.joint) = (Some(other.clone()), true);
        }
        self
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Relay(relay) => relay.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Relay(relay) => relay.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Relay(relay) => relay.incoming.size_hint(),
        }
    }
}

impl Relay {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = ready!(self.poll_guarded(cx));
        if let (Some(Err(error)), Some(progress)) = (&polled, &self.progress) {
            let _ = progress.fault.set(error.fault());
        }
        match (&mut self.copying, &polled) {
            (None, _) => {}
            (Some(copying), Some(Ok(frame))) => {
                copying.add(frame.data_ref().map_or(&[], |data| data));
                // Nobody asks on behind the last piece of a known length.
                if frame.is_trailers() || self.incoming.is_end_stream() {
                    copying.finish();
                }
            }
            (Some(copying), None) => copying.finish(),
            (Some(_), Some(Err(_))) => self.copying = None,
        }
        Poll::Ready(polled)
    }

    fn poll_guarded(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some((deadline, length)) = &mut self.whole
            && deadline.poll(cx, *length).is_ready()
        {
            return Poll::Ready(Some(Err(BodyError::Late(*length))));
        }
        let Poll::Ready(mut polled) = self.incoming.poll_frame(cx) else {
            if let Some(progress) = &self.progress {
                progress.awaits();
            }
            let patience = self.pace.as_mut().and_then(|pace| pace.patience(self.seen, Instant::now()));
            let max_silence = self.max_silence.unwrap_or(Duration::MAX);
            if let Some(patience) = patience.filter(|patience| *patience < max_silence) {
                ready!(self.silence.poll(cx, patience));
                return Poll::Ready(Some(Err(BodyError::TooSlow)));
            }
            let Some(max_silence) = self.max_silence else { return Poll::Pending };
            ready!(self.poll_silence(cx, max_silence));
            return Poll::Ready(Some(Err(BodyError::Stalled(max_silence))));
        };
        if let Some(pace) = self.pace.as_mut().filter(|pace| pace.is_waiting()) {
            pace.arrived(Instant::now());
        }
        if let (Some(progress), None | Some(Ok(_))) = (&self.progress, &polled) {
            progress.note();
        }
        if let Some(Ok(frame)) = &mut polled {
            self.silence.disarm();
            if let Some(trailers) = frame.trailers_mut() {
                (self.clean)(trailers, self.edits.as_deref());
            }
            self.seen += frame.data_ref().map_or(0, Bytes::len) as u64;
            if self.seen > self.max_bytes {
                return Poll::Ready(Some(Err(BodyError::TooLarge(self.max_bytes))));
            }
        }
        Poll::Ready(polled)
    }

    /// Ready when nothing has moved for so long.
    fn poll_silence(&mut self, cx: &mut Context<'_>, max_silence: Duration) -> Poll<()> {
        let mut wait = max_silence;
        loop {
            ready!(self.silence.poll(cx, wait));
            let other = self.progress.as_ref().filter(|_| self.joint);
            wait = other.map_or(Duration::ZERO, |progress| max_silence.saturating_sub(progress.silence()));
            if wait.is_zero() {
                return Poll::Ready(());
            }
            self.silence.disarm();
        }
    }
}
