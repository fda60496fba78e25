//! What of an HTTP/2 connection is to be polled: h2, some of the streams, or both. They share the connection's task, and each has a
//! waker of its own. Whatever is woken while the task is at work is polled in the same turn, and does not wake the task again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

/// As a waker: h2 is to be polled.
#[derive(Default)]
pub(super) struct Wakeups {
    woken: Mutex<Woken>,
}

#[derive(Default)]
struct Woken {
    h2: bool,
    /// The places of streams.
    streams: Vec<usize>,
    /// The connection's task, while it rests.
    resting: Option<Waker>,
}

impl Wakeups {
    /// The task is at work, or over.
    pub(super) fn begin_turn(&self) {
        self.lock().resting = None;
    }

    /// Whether h2 was woken since this was asked last.
    pub(super) fn take_h2(&self) -> bool {
        std::mem::take(&mut self.lock().h2)
    }

    /// Adds the places of the streams that were woken since this was asked last, in order.
    pub(super) fn take_streams(&self, places: &mut Vec<usize>) {
        let woken = &mut self.lock().streams;
        if places.is_empty() {
            std::mem::swap(woken, places);
        } else {
            places.append(woken);
        }
    }

    /// The task may rest, and is woken for the next thing; `false` if there is something to poll.
    pub(super) fn rests(&self, cx: &Context<'_>) -> bool {
        let mut woken = self.lock();
        let rests = !woken.h2 && woken.streams.is_empty();
        if rests {
            woken.resting = Some(cx.waker().clone());
        }
        rests
    }

    fn note(&self, what: impl FnOnce(&mut Woken)) {
        let mut woken = self.lock();
        what(&mut woken);
        let resting = woken.resting.take();
        drop(woken);
        if let Some(task) = resting {
            task.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Woken> {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Wakeups {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.note(|woken| woken.h2 = true);
    }
}

/// Wakes the stream in one place, whichever that is.
pub(super) struct StreamWaker {
    place: usize,
    /// Among those that are to be polled.
    is_woken: AtomicBool,
    wakeups: Arc<Wakeups>,
}

impl StreamWaker {
    pub(super) fn new(place: usize, wakeups: &Arc<Wakeups>) -> Arc<Self> {
        Arc::new(Self { place, is_woken: AtomicBool::default(), wakeups: wakeups.clone() })
    }

    /// The stream is about to be polled: what wakes it from here on has it polled again.
    pub(super) fn begin_poll(&self) {
        self.is_woken.swap(false, Ordering::AcqRel);
    }
}

impl Wake for StreamWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            self.wakeups.note(|woken| woken.streams.push(self.place));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_task_is_woken_once_and_only_while_it_rests() {
        let (task, wakeups) = (Arc::<Task>::default(), Arc::<Wakeups>::default());
        let waker = task.clone().into();
        let cx = Context::from_waker(&waker);
        let [first, second] = [0, 1].map(|place| StreamWaker::new(place, &wakeups));
        let mut places = Vec::new();
        // At work.
        second.wake_by_ref();
        first.wake_by_ref();
        second.wake_by_ref();
        wakeups.wake_by_ref();
        assert!(!wakeups.rests(&cx));
        wakeups.take_streams(&mut places);
        assert_eq!(places, [1, 0]);
        assert!(!wakeups.rests(&cx));
        assert!(wakeups.take_h2() && !wakeups.take_h2());
        assert!(wakeups.rests(&cx));
        assert_eq!(task.0.load(Ordering::Relaxed), 0);
        // At rest.
        first.begin_poll();
        wakeups.wake_by_ref();
        first.wake_by_ref();
        second.wake_by_ref();
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
        places.clear();
        wakeups.take_streams(&mut places);
        assert_eq!(places, [0], "the second was not polled since it was woken");
        // It begins for another reason.
        assert!(wakeups.take_h2() && wakeups.rests(&cx));
        wakeups.begin_turn();
        wakeups.wake_by_ref();
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
    }
}
