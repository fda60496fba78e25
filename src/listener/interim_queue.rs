//! Interim answers that wait on a connection of HTTP/1.1 for the gate to write them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Context;

use bytes::Bytes;
use futures_util::task::AtomicWaker;

/// Interim answers that one request may get.
pub(super) const MAX_INTERIMS: usize = 16;
/// Bytes of all of them.
pub(super) const MAX_INTERIM_BYTES: usize = 64 << 10;

/// What waits on a connection of HTTP/1.1.
#[derive(Debug, Default)]
pub(super) struct InterimQueue {
    queued: Mutex<QueuedInterims>,
    is_any: AtomicBool,
    /// The request, to be woken when there is something to write, and when it is written.
    request: AtomicWaker,
}

#[derive(Debug, Default)]
pub(super) struct QueuedInterims {
    bytes: Vec<u8>,
    /// Which request they announce the answer of, if it still is to come. There is one at a time on a connection of HTTP/1.1.
    open: Option<u64>,
    requests: u64,
    budget: InterimBudget,
}

/// How many there were, and how many bytes they had.
#[derive(Debug, Default)]
pub(super) struct InterimBudget {
    count: usize,
    bytes: usize,
}

impl InterimBudget {
    /// Whether there may be one more; it is counted then.
    pub(super) fn admits(&mut self, bytes: usize) -> bool {
        let admitted = self.count < MAX_INTERIMS && self.bytes + bytes <= MAX_INTERIM_BYTES;
        if admitted {
            (self.count, self.bytes) = (self.count + 1, self.bytes + bytes);
        }
        admitted
    }
}

impl InterimQueue {
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
        let queued = self.lock();
        if queued.bytes.is_empty() {
            self.is_any.store(false, Ordering::Release);
        }
        drop(queued);
        self.request.wake();
    }

    pub(super) fn push(&self, request: u64, answer: &[u8]) {
        let mut queued = self.lock();
        if queued.open != Some(request) || !queued.budget.admits(answer.len()) {
            return;
        }
        queued.bytes.extend_from_slice(answer);
        self.is_any.store(true, Ordering::Release);
        drop(queued);
        self.request.wake();
    }

    /// A request begins; returns its number.
    pub(super) fn begin(&self) -> u64 {
        let mut queued = self.lock();
        queued.requests += 1;
        (queued.open, queued.budget) = (Some(queued.requests), InterimBudget::default());
        queued.requests
    }

    /// The answer to a request comes: nothing more is written for it.
    pub(super) fn end(&self, request: u64) {
        // A waker keeps the memory of its task, even when that has ended: a call outlives the task of its connection.
        drop(self.request.take());
        let mut queued = self.lock();
        if queued.open == Some(request) {
            queued.open = None;
            if !std::mem::take(&mut queued.bytes).is_empty() {
                // The gate looks for itself whether it is in the middle of one.
                self.is_any.store(false, Ordering::Release);
            }
        }
    }

    /// Wakes this task when there is something to write, and when it is written.
    pub(super) fn watch(&self, cx: &Context<'_>) {
        self.request.register(cx.waker());
    }

    fn lock(&self) -> MutexGuard<'_, QueuedInterims> {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
