//! What this process admitted by itself while Redis did not answer, until it is merged into the logs there.

mod doubt;
mod log;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use self::log::{MAX_BATCH, NamedTimes, PendingLog};
use super::query::pack_windows;
use crate::config::Limit;
use crate::telemetry::MergeMetrics;

/// Admissions that it holds, at 8 bytes each and some 200 for each log.
const MAX_ADMISSIONS: usize = 1_000_000;
/// In the background, so many logs at one time, and so often.
const LOGS_PER_ROUND: usize = 32;
const ROUND_INTERVAL: Duration = Duration::from_millis(10);
/// A merge that took Redis longer than `SLOW_MERGE`, as one of a very long log does, is followed by a pause of the background so
/// many times as long: Redis decides for all other tokens meanwhile. A request that needs the log does not wait for that.
const SLOW_MERGE: Duration = Duration::from_millis(5);
const REST: u32 = 3;
/// If Redis refuses to merge a log, requests don't ask it to for so long: each would wait for all before it.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// The admissions of a process that Redis does not know of yet, by the keys of their logs; one for all workers. Of a bounded
/// size: when it is full, the oldest are dropped, so that their tokens may be admitted that much too often.
pub struct PendingMerges {
    state: Mutex<PendingLogs>,
    /// How many admissions there are; changed only with the lock.
    len: AtomicUsize,
    added: Notify,
    max: usize,
    /// Times are milliseconds since then, on the monotonic clock.
    epoch: Instant,
    metrics: Option<MergeMetrics>,
}

#[derive(Default)]
struct PendingLogs {
    logs: HashMap<Arc<[u8]>, PendingLog>,
    /// Keys of logs, in the order in which the background merges them; some may be gone.
    queue: VecDeque<Arc<[u8]>>,
    /// When the background may go on.
    next_round: Option<Instant>,
    merged: Merged,
    is_full: bool,
}

/// What has been merged since it was reported last. A log counts whenever nothing of it is left to merge.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Merged {
    pub(super) admissions: usize,
    pub(super) logs: usize,
}

/// What a request gets that wants to merge a log.
pub(super) enum ClaimResult {
    /// There is nothing to merge.
    Nothing,
    /// Another task is merging it, or it is in doubt what Redis has counted: the channel closes or is notified after that; with
    /// `true` if Redis did not answer.
    Taken(watch::Receiver<bool>),
    /// Redis has just refused it.
    Refused,
    Batch(Batch),
}

/// Admissions to be merged into one log, by the holder of this alone. Unless it is acknowledged, they are sent again.
pub(super) struct Batch {
    pending: Arc<PendingMerges>,
    /// The log's key.
    pub(super) log: Arc<[u8]>,
    /// Its limits as the script takes them.
    pub(super) windows: Arc<[u8]>,
    admissions: Arc<NamedTimes>,
    answer: MergeAnswer,
    /// Dropped, it wakes the tasks that wait.
    done: watch::Sender<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum MergeAnswer {
    Unknown,
    /// It took Redis so long.
    Acknowledged(Duration),
    Refused,
}

impl Default for PendingMerges {
    fn default() -> Self {
        let (state, len, added) = (Mutex::default(), AtomicUsize::new(0), Notify::new());
        Self { state, len, added, max: MAX_ADMISSIONS, epoch: Instant::now(), metrics: None }
    }
}

impl PendingMerges {
    /// None so far; these metrics report on them.
    #[must_use]
    pub fn new(metrics: MergeMetrics) -> Self {
        Self { metrics: Some(metrics), ..Self::default() }
    }

    /// How many admissions wait to be merged.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many logs they are for.
    #[must_use]
    pub fn logs(&self) -> usize {
        self.lock().logs.len()
    }

    /// Resolves when something waits to be merged.
    pub(super) async fn added(&self) {
        loop {
            let added = self.added.notified();
            if !self.is_empty() {
                return;
            }
            added.await;
        }
    }

    /// Adds `cost` admissions for a log with these limits.
    pub(super) fn add(&self, log: &[u8], limits: &[Limit], cost: u32, at: Instant) {
        let at_ms = self.ms(at);
        self.put(log, limits, cost, at_ms, |log| log.times.extend(std::iter::repeat_n(at_ms, cost as usize)));
    }

    fn put(&self, log: &[u8], limits: &[Limit], cost: u32, at_ms: u64, put: impl FnOnce(&mut PendingLog)) {
        let cost = cost as usize;
        let mut state = self.lock();
        let dropped = if self.len() + cost > self.max { self.make_room(&mut state, at_ms) } else { 0 };
        let first_drop = dropped > 0 && !std::mem::replace(&mut state.is_full, true);
        put(state.log(log, limits));
        self.set_len(self.len() + cost);
        drop(state);
        self.added.notify_waiters();
        if let Some(metrics) = &self.metrics {
            metrics.dropped.inc_by(dropped as u64);
        }
        if first_drop {
            tracing::error!(
                room = self.max,
                "too many admissions were made while Redis was unreachable: the oldest will not be merged into it"
            );
        }
    }

    /// The next batch of a log.
    pub(super) fn claim(self: &Arc<Self>, log: &[u8], now: Instant) -> ClaimResult {
        let mut state = self.lock();
        match state.logs.get(log) {
            None => ClaimResult::Nothing,
            Some(log) if log.refused_until.is_some_and(|until| now < until) => ClaimResult::Refused,
            Some(PendingLog { claim: Some(taken), .. }) => ClaimResult::Taken(taken.clone()),
            Some(_) => match self.next_batch(&mut state, log, now) {
                Some(batch) => ClaimResult::Batch(batch),
                None => {
                    state.logs.get(log).map_or(ClaimResult::Nothing, |log| ClaimResult::Taken(log.settled.subscribe()))
                }
            },
        }
    }

    /// Batches of some logs; none if the last ones were `paced` and it is too early for `now`.
    pub(super) fn claim_some(self: &Arc<Self>, now: Instant, paced: bool) -> Vec<Batch> {
        let mut state = self.lock();
        let mut batches = Vec::new();
        if paced && state.next_round.is_some_and(|due| now < due) {
            return batches;
        }
        state.next_round = Some(now + ROUND_INTERVAL);
        for _ in 0..state.queue.len() {
            let Some(key) = state.queue.pop_front() else { break };
            // A log that went and came back has a newer entry.
            if !state.logs.get_key_value(&key).is_some_and(|(listed, _)| Arc::ptr_eq(listed, &key)) {
                continue;
            }
            if state.logs.get(&key).is_some_and(|log| log.claim.is_none()) {
                batches.extend(self.next_batch(&mut state, &key, now));
            }
            if state.logs.contains_key(&key) {
                state.queue.push_back(key);
            }
            if batches.len() == LOGS_PER_ROUND || runs(&batches) >= MAX_BATCH {
                break;
            }
        }
        batches
    }

    /// What has been merged, if nothing is left to merge; only once.
    pub(super) fn take_merged(&self) -> Option<Merged> {
        let mut state = self.lock();
        let is_over = state.logs.is_empty() && state.merged.admissions > 0;
        is_over.then(|| {
            state.is_full = false;
            std::mem::take(&mut state.merged)
        })
    }

    /// Drops what is to be merged into a log.
    pub(super) fn forget(&self, key: &[u8]) {
        if self.is_empty() {
            return;
        }
        let mut state = self.lock();
        let Some(log) = state.logs.get_mut(key) else { return };
        let mut forgotten = std::mem::take(&mut log.times).len();
        // A batch that is being sent is still its holder's.
        if log.claim.is_none() {
            forgotten += log.sent.take().map_or(0, |sent| sent.times.len());
            if log.is_empty() {
                state.logs.remove(key);
            }
        }
        self.set_len(self.len() - forgotten);
    }

    fn next_batch(self: &Arc<Self>, state: &mut PendingLogs, key: &[u8], now: Instant) -> Option<Batch> {
        let (key, _) = state.logs.get_key_value(key)?;
        let key = key.clone();
        let log = state.logs.get_mut(&key)?;
        self.set_len(self.len() - log.expire(self.ms(now)));
        let Some(admissions) = log.next_batch() else {
            if log.is_empty() {
                state.logs.remove(&key);
            }
            return None;
        };
        let (done, claim) = watch::channel(false);
        log.claim = Some(claim);
        let (pending, windows) = (self.clone(), log.windows.clone());
        Some(Batch { pending, log: key, windows, admissions, answer: MergeAnswer::Unknown, done })
    }

    /// Drops what no window sees any more, and if that is too little, the oldest. Returns how many of the latter.
    fn make_room(&self, state: &mut PendingLogs, now_ms: u64) -> usize {
        let target = self.max - self.max / 16;
        let PendingLogs { logs, queue, .. } = state;
        let expired: usize = logs.values_mut().map(|log| log.expire(now_ms)).sum();
        let len = self.len() - expired;
        let mut dropped = 0;
        if len > target {
            let mut times: Vec<u64> = logs.values().flat_map(|log| log.times.iter().copied()).collect();
            let surplus = (len - target).min(times.len());
            if surplus > 0 {
                let (_, last, _) = times.select_nth_unstable(surplus - 1);
                dropped = logs.values_mut().map(|log| log.retain(|at_ms| at_ms > *last)).sum();
            }
        }
        self.set_len(len - dropped);
        logs.retain(|_, log| !log.is_empty());
        queue.retain(|key| logs.contains_key(key));
        dropped
    }

    fn lock(&self) -> MutexGuard<'_, PendingLogs> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ms(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_millis() as u64
    }

    fn set_len(&self, len: usize) {
        self.len.store(len, Ordering::Relaxed);
        if let Some(metrics) = &self.metrics {
            metrics.waiting.set(len as i64);
        }
    }
}

/// Admissions of different moments, which cost Redis the more the more there are.
fn runs(batches: &[Batch]) -> usize {
    batches.iter().map(|batch| batch.admissions.times.chunk_by(|a, b| a == b).count()).sum()
}

impl PendingLogs {
    /// The log of this key, made if need be, with these limits from now on.
    fn log(&mut self, key: &[u8], limits: &[Limit]) -> &mut PendingLog {
        if !self.logs.contains_key(key) {
            let key: Arc<[u8]> = key.into();
            self.queue.push_back(key.clone());
            self.logs.insert(key, PendingLog::default());
        }
        let log = self.logs.get_mut(key).expect("it is there, or was made just now");
        let windows = pack_windows(limits);
        if log.windows[..] != windows[..] {
            log.windows = windows[..].into();
            log.longest_ms = limits.iter().map(|limit| limit.window_ms.get()).max().map_or(0, u64::from);
        }
        log
    }
}

impl Batch {
    /// Its name, the same when it is sent again.
    pub(super) fn name(&self) -> &[u8] {
        &self.admissions.name
    }

    /// How many milliseconds before `now` admissions were, the latest first, and how many then: 4 bytes each.
    pub(super) fn ages(&self, now: Instant) -> Vec<u8> {
        let now_ms = self.pending.ms(now);
        let age = |at_ms: &u64| u32::try_from(now_ms.saturating_sub(*at_ms)).unwrap_or(u32::MAX);
        let runs = self.admissions.times.chunk_by(|a, b| a == b);
        runs.flat_map(|run| [age(&run[0]), run.len() as u32]).flat_map(u32::to_le_bytes).collect()
    }

    /// Redis has them, after so long.
    pub(super) fn acknowledge(mut self, took: Duration) {
        self.answer = MergeAnswer::Acknowledged(took);
    }

    /// Redis does not answer.
    pub(super) fn fail(self) {
        self.done.send_replace(true);
    }

    /// Redis answers, but does not take them.
    pub(super) fn refuse(mut self) {
        self.answer = MergeAnswer::Refused;
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let mut state = self.pending.lock();
        let Some(log) = state.logs.get_mut(&self.log) else { return };
        log.claim = None;
        log.refused_until = (self.answer == MergeAnswer::Refused).then(|| Instant::now() + REFUSED_PAUSE);
        let MergeAnswer::Acknowledged(took) = self.answer else { return };
        log.sent = None;
        let rest = (took > SLOW_MERGE).then(|| Instant::now() + REST * took);
        state.next_round = state.next_round.max(rest);
        let Some(log) = state.logs.get(&self.log) else { return };
        let is_last = log.is_empty();
        if is_last {
            state.logs.remove(&self.log);
            if state.logs.is_empty() {
                state.queue = VecDeque::new();
            }
        }
        let admissions = self.admissions.times.len();
        state.merged.admissions += admissions;
        state.merged.logs += usize::from(is_last);
        self.pending.set_len(self.pending.len() - admissions);
        if let Some(metrics) = &self.pending.metrics {
            metrics.merged.inc_by(admissions as u64);
        }
    }
}

#[cfg(test)]
mod tests;
