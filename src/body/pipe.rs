//! The body of a request on HTTP/1.1, from the task that reads the client's connection to whoever takes it: one piece at a time, and
//! none before it is wanted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::error::BodyError;

/// The end at the client's connection.
#[derive(Debug)]
pub(crate) struct PipeSender {
    shared: Arc<Mutex<Pipe>>,
}

/// The end from which the body is taken.
#[derive(Debug)]
pub struct PipeBody {
    shared: Arc<Mutex<Pipe>>,
    /// Bytes that are still to be taken; `None`: nobody knows.
    left: Option<u64>,
    is_over: bool,
}

#[derive(Debug, Default)]
struct Pipe {
    piece: Option<Bytes>,
    /// What follows the last piece.
    end: Option<Result<Option<HeaderMap>, ()>>,
    /// The body was asked for.
    is_wanted: bool,
    /// Nobody takes it any more.
    is_left: bool,
    sender: Option<Waker>,
    taker: Option<Waker>,
}

/// What the taker of a body does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taker {
    /// It has not asked yet, or has not taken the last piece.
    Waits,
    /// It takes the next piece.
    Wants,
    /// It takes nothing more.
    Left,
}

/// A pipe for a body of this length, if that is known.
pub(crate) fn pipe(length: Option<u64>) -> (PipeSender, PipeBody) {
    let shared = Arc::<Mutex<Pipe>>::default();
    (PipeSender { shared: shared.clone() }, PipeBody { shared, left: length, is_over: false })
}

fn lock(pipe: &Mutex<Pipe>) -> MutexGuard<'_, Pipe> {
    pipe.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes outside the lock.
fn wake(mut pipe: MutexGuard<'_, Pipe>, which: impl FnOnce(&mut Pipe) -> &mut Option<Waker>) {
    let waker = which(&mut pipe).take();
    drop(pipe);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl PipeSender {
    /// What the taker does; this task is woken when that changes.
    pub(crate) fn watch(&self, cx: &Context<'_>) -> Taker {
        let mut pipe = lock(&self.shared);
        match (pipe.is_left, pipe.is_wanted && pipe.piece.is_none()) {
            (true, _) => Taker::Left,
            (false, true) => {
                // It may leave while the sender waits for the next piece.
                keep(&mut pipe.sender, cx);
                Taker::Wants
            }
            (false, false) => {
                keep(&mut pipe.sender, cx);
                Taker::Waits
            }
        }
    }

    /// Whether nobody takes the body any more.
    pub(crate) fn is_left(&self) -> bool {
        lock(&self.shared).is_left
    }

    /// Hands over the next piece.
    pub(crate) fn push(&self, piece: Bytes) {
        let mut pipe = lock(&self.shared);
        pipe.piece = Some(piece);
        wake(pipe, |pipe| &mut pipe.taker);
    }

    /// The body is whole; these are its trailers.
    pub(crate) fn finish(self, trailers: Option<HeaderMap>) {
        self.end(Ok(trailers));
    }

    fn end(&self, end: Result<Option<HeaderMap>, ()>) {
        let mut pipe = lock(&self.shared);
        pipe.end.get_or_insert(end);
        wake(pipe, |pipe| &mut pipe.taker);
    }
}

impl Drop for PipeSender {
    /// A body that is not whole by then has broken off.
    fn drop(&mut self) {
        self.end(Err(()));
    }
}

impl PipeBody {
    pub(super) fn poll_frame(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let mut pipe = lock(&self.shared);
        if let Some(piece) = pipe.piece.take() {
            wake(pipe, |pipe| &mut pipe.sender);
            if let Some(left) = &mut self.left {
                *left -= piece.len() as u64;
                self.is_over = *left == 0;
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let Some(end) = pipe.end.take() else {
            keep(&mut pipe.taker, cx);
            if !std::mem::replace(&mut pipe.is_wanted, true) {
                wake(pipe, |pipe| &mut pipe.sender);
            }
            return Poll::Pending;
        };
        self.is_over = true;
        Poll::Ready(match end {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(()) => Some(Err(BodyError::Incomplete)),
        })
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.is_over
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for PipeBody {
    fn drop(&mut self) {
        let mut pipe = lock(&self.shared);
        pipe.is_left = true;
        wake(pipe, |pipe| &mut pipe.sender);
    }
}

/// Keeps the waker of this task.
fn keep(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(kept) if kept.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    use super::*;

    /// A task that may run.
    #[derive(Default)]
    struct Runnable(AtomicBool);

    impl Wake for Runnable {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// What the two ends do.
    #[derive(Clone, Copy, Debug)]
    struct Script {
        pieces: u64,
        /// The length is known.
        sized: bool,
        /// The sender breaks off in place of finishing.
        breaks: bool,
        /// The taker leaves after so many pieces.
        leaves_after: Option<u64>,
    }

    /// Runs both ends as the choices say, and the rest in turn. Returns how many choices there were at each step. Each method of the
    /// pipe holds its lock, so this tries all that threads can do.
    fn run(script: Script, choices: &[usize]) -> Vec<usize> {
        let (sender, body) = pipe(script.sized.then_some(script.pieces));
        let (mut sender, mut body, mut sent, mut taken) = (Some(sender), Some(body), 0, 0);
        let tasks = [(); 2].map(|()| Arc::new(Runnable(true.into())));
        let wakers = tasks.clone().map(Waker::from);
        let mut counts = Vec::new();
        while sender.is_some() || body.is_some() {
            let is_there = [sender.is_some(), body.is_some()];
            let runnable: Vec<usize> =
                (0..2).filter(|task| is_there[*task] && tasks[*task].0.load(Ordering::Relaxed)).collect();
            assert!(!runnable.is_empty(), "{script:?} {choices:?}: both wait for ever after {sent} and {taken}");
            let task = runnable[choices.get(counts.len()).copied().unwrap_or(0)];
            counts.push(runnable.len());
            tasks[task].0.store(false, Ordering::Relaxed);
            let cx = Context::from_waker(&wakers[task]);
            let goes_on = match (task, &sender, &mut body) {
                (0, Some(end), _) => match end.watch(&cx) {
                    Taker::Waits => false,
                    Taker::Left => {
                        sender = None;
                        false
                    }
                    Taker::Wants if sent < script.pieces => {
                        sent += 1;
                        end.push(Bytes::from_static(b"x"));
                        if sent == script.pieces && script.sized && !script.breaks {
                            sender.take().unwrap().finish(None);
                        }
                        true
                    }
                    Taker::Wants => {
                        let end = sender.take().unwrap();
                        if !script.breaks {
                            end.finish(None);
                        }
                        false
                    }
                },
                (1, _, Some(end)) => match end.poll_frame(&cx) {
                    Poll::Pending => false,
                    Poll::Ready(Some(Ok(frame))) => {
                        taken += frame.data_ref().map_or(0, Bytes::len) as u64;
                        if script.leaves_after == Some(taken) {
                            body = None;
                        }
                        true
                    }
                    Poll::Ready(end) => {
                        let is_whole = end.is_none();
                        assert_eq!(
                            (taken, is_whole),
                            (script.pieces, !script.breaks || script.sized),
                            "{script:?} {choices:?}"
                        );
                        body = None;
                        false
                    }
                },
                _ => unreachable!("a task that is over does not run"),
            };
            if goes_on {
                tasks[task].0.store(true, Ordering::Relaxed);
            }
        }
        counts
    }

    #[test]
    fn however_its_ends_run_no_piece_is_lost_and_nobody_waits_for_ever() {
        let mut runs = 0;
        for pieces in [1, 3] {
            for (sized, breaks) in [(true, false), (false, false), (false, true)] {
                for leaves_after in [None, Some(1), Some(2)] {
                    let script = Script { pieces, sized, breaks, leaves_after };
                    // All sequences of choices, like the readings of an odometer.
                    let mut choices = Vec::new();
                    loop {
                        let counts = run(script, &choices);
                        runs += 1;
                        choices.resize(counts.len(), 0);
                        let Some(last) = (0..counts.len()).rfind(|step| choices[*step] + 1 < counts[*step]) else {
                            break;
                        };
                        choices[last] += 1;
                        choices.truncate(last + 1);
                    }
                }
            }
        }
        assert!(runs > 100, "{runs}");
    }
}
