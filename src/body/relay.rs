//! A body that arrives on one side and leaves on the other, frame by frame: never collected, never copied.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;

use crate::config::HeaderEdits;
use crate::deadline::{Deadline, End};

use super::copy::{BodyCopy, Copying};
use super::error::BodyError;
use super::incoming::IncomingBody;
use super::progress::Progress;

/// Takes off trailers that may not pass, and applies the route's edits.
pub(crate) type CleanTrailers = fn(&mut HeaderMap, Option<&HeaderEdits>);

/// Something that lasts as long as a body does.
pub(crate) type BodyGuard = Box<dyn Send>;

/// A body that passes, with a bound on its length and on its silence.
pub struct Relay {
    incoming: IncomingBody,
    /// The longest silence; `None`: no bound.
    idle: Option<Duration>,
    silence: Deadline,
    limit: u64,
    seen: u64,
    clean: CleanTrailers,
    /// `None` where the route changes nothing: most bodies need not count its references.
    edits: Option<Arc<HeaderEdits>>,
    copying: Option<Box<Copying>>,
    progress: Option<Arc<Progress>>,
    end: Option<End>,
    /// Whether the progress is the other direction's too.
    joint: bool,
    _guard: Option<BodyGuard>,
}

impl Relay {
    pub(super) fn new(
        incoming: IncomingBody,
        idle: Option<Duration>,
        limit: u64,
        clean: CleanTrailers,
        edits: &Arc<HeaderEdits>,
    ) -> Self {
        Self {
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
            _guard: None,
        }
    }

    pub(super) fn track(&mut self, guard: BodyGuard) -> Arc<Progress> {
        self._guard = Some(guard);
        self.progress.insert(Arc::new(Progress::new())).clone()
    }

    pub(super) fn until(&mut self, end: Option<End>) {
        self.end = end;
    }

    pub(super) fn copy(&mut self, max_bytes: usize) -> oneshot::Receiver<BodyCopy> {
        let (copying, receiver) = Copying::new(max_bytes);
        self.copying = Some(Box::new(copying));
        receiver
    }

    pub(super) fn beside(&mut self, other: &Arc<Progress>) {
        self.progress = Some(other.clone());
        self.joint = true;
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
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
