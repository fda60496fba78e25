//! What this process admitted by itself while Redis did not answer, until it is merged into the logs there.

mod offer;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::config::Limit;
use crate::telemetry::MergeMetrics;

pub(super) use offer::Offer;

/// Admissions that it holds, at 8 bytes each and some 200 for each log.
const ROOM: usize = 1_000_000;
/// So many admissions are merged at once: some milliseconds of Redis's time at the worst.
const OFFER: usize = 1_000;
/// In the background, so many logs at one time, and so often.
const BATCH: (usize, Duration) = (32, Duration::from_millis(10));

/// The admissions of a process that Redis does not know of yet, by the keys of the logs that they belong into; one for all workers. Of a bounded size: when it is full, the
/// oldest are given up, so that their tokens may be admitted that much too often.
pub struct PendingMerges {
    book: Mutex<Book>,
    /// How many admissions there are.
    len: AtomicUsize,
    written: Notify,
    room: usize,
    /// Times are milliseconds since then, on a clock that nobody sets.
    epoch: Instant,
    metrics: Option<MergeMetrics>,
}

#[derive(Default)]
struct Book {
    pages: HashMap<Arc<[u8]>, Page>,
    /// Logs that may have a page, in the order in which the background merges them.
    queue: VecDeque<Arc<[u8]>>,
    /// When the background may go on.
    next_batch: Option<Instant>,
    merged: Merged,
    full: bool,
}

/// What is to be merged into one log.
struct Page {
    times: VecDeque<u64>,
    /// The windows of its limits in milliseconds, shortest first.
    windows: Arc<[u32]>,
    /// What was offered to Redis last, until it is known to be there. It keeps its name and is offered again as it is.
    offered: Option<Arc<Offered>>,
    /// Somebody is offering it at this moment; it closes when they have done.
    claim: Option<watch::Receiver<()>>,
    /// Redis answers, but has refused it: until then no request offers it, only the background.
    refused_until: Option<Instant>,
}

struct Offered {
    name: [u8; 16],
    times: Vec<u64>,
}

/// What has been merged since the last time that nothing was left to merge.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Merged {
    pub(super) admissions: usize,
    pub(super) logs: usize,
}

/// Who asks for a log's page gets …
pub(super) enum Claim {
    /// … nothing: there is none.
    Nothing,
    /// … to wait until somebody else has offered it.
    Taken(watch::Receiver<()>),
    /// … to know that Redis has just refused it.
    Refused,
    /// … the next part of it.
    Offer(Offer),
}

impl Default for PendingMerges {
    fn default() -> Self {
        Self::of(ROOM, None)
    }
}

impl PendingMerges {
    /// A journal that is told about in these metrics.
    #[must_use]
    pub fn new(metrics: MergeMetrics) -> Self {
        Self::of(ROOM, Some(metrics))
    }

    fn of(room: usize, metrics: Option<MergeMetrics>) -> Self {
        Self {
            book: Mutex::default(),
            len: AtomicUsize::new(0),
            written: Notify::new(),
            room,
            epoch: Instant::now(),
            metrics,
        }
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
        self.book().pages.len()
    }

    /// Resolves when something waits to be merged.
    pub(super) async fn written(&self) {
        loop {
            let written = self.written.notified();
            if !self.is_empty() {
                return;
            }
            written.await;
        }
    }

    /// Writes down `cost` admissions for a log, on which there are these limits.
    pub(super) fn write(&self, log: &[u8], limits: &[Limit], cost: u32, at: Instant) {
        let at_ms = self.ms(at);
        let mut book = self.book();
        let dropped = if self.len() + cost as usize > self.room { self.make_room(&mut book, at_ms) } else { 0 };
        let first_drop = dropped > 0 && !std::mem::replace(&mut book.full, true);
        let page = book.page(log, limits);
        page.times.extend(std::iter::repeat_n(at_ms, cost as usize));
        self.grow(cost as usize);
        drop(book);
        self.written.notify_waiters();
        if let Some(metrics) = &self.metrics {
            metrics.dropped.inc_by(dropped as u64);
        }
        if first_drop {
            tracing::error!(
                room = self.room,
                "too many admissions were made while Redis is away: the oldest will not be merged into it"
            );
        }
    }

    /// The next part of a log's page.
    pub(super) fn claim(self: &Arc<Self>, log: &[u8], now: Instant) -> Claim {
        let mut book = self.book();
        match book.pages.get(log) {
            None => Claim::Nothing,
            Some(page) if page.refused_until.is_some_and(|until| now < until) => Claim::Refused,
            Some(Page { claim: Some(taken), .. }) => Claim::Taken(taken.clone()),
            Some(_) => self.offer(&mut book, log, now).map_or(Claim::Nothing, Claim::Offer),
        }
    }

    /// Pages of some logs; fewer or none if that would be too much at once for `now`.
    pub(super) fn claim_some(self: &Arc<Self>, now: Instant, at_leisure: bool) -> Vec<Offer> {
        let mut book = self.book();
        let mut offers = Vec::new();
        if at_leisure && book.next_batch.is_some_and(|due| now < due) {
            return offers;
        }
        book.next_batch = Some(now + BATCH.1);
        for _ in 0..book.queue.len() {
            if offers.len() == BATCH.0 {
                break;
            }
            let Some(log) = book.queue.pop_front() else { break };
            match book.pages.get(&log).map(|page| page.claim.is_some()) {
                None => {}
                Some(true) => book.queue.push_back(log),
                Some(false) => {
                    offers.extend(self.offer(&mut book, &log, now));
                    if book.pages.contains_key(&log) {
                        book.queue.push_back(log);
                    }
                }
            }
        }
        offers
    }

    /// What has been merged, if nothing is left to merge and it was not told before.
    pub(super) fn finished(&self) -> Option<Merged> {
        let mut book = self.book();
        let over = book.pages.is_empty() && book.merged.admissions > 0;
        over.then(|| {
            book.full = false;
            std::mem::take(&mut book.merged)
        })
    }

    /// Forgets what is to be merged into a log.
    pub(super) fn forget(&self, log: &[u8]) {
        if self.is_empty() {
            return;
        }
        let mut book = self.book();
        let Some(page) = book.pages.get_mut(log) else { return };
        // What is being offered at this moment is taken back by its holder.
        let mut forgotten = std::mem::take(&mut page.times).len();
        if page.claim.is_none() {
            forgotten += page.offered.take().map_or(0, |offered| offered.times.len());
            book.pages.remove(log);
        }
        self.shrink(forgotten);
    }

    fn offer(self: &Arc<Self>, book: &mut Book, log: &[u8], now: Instant) -> Option<Offer> {
        let now_ms = self.ms(now);
        let (log, _) = book.pages.get_key_value(log)?;
        let log = log.clone();
        let page = book.pages.get_mut(&log)?;
        let expired = page.expire(now_ms);
        self.shrink(expired);
        let offered = match &page.offered {
            Some(offered) => offered.clone(),
            None if page.times.is_empty() => {
                book.pages.remove(&log);
                return None;
            }
            None => {
                let some = page.times.len().min(OFFER);
                let mut times: Vec<u64> = page.times.drain(..some).collect();
                times.sort_unstable_by(|a, b| b.cmp(a));
                let mut name = [0; 16];
                fastrand::fill(&mut name);
                page.offered.insert(Arc::new(Offered { name, times })).clone()
            }
        };
        let (done, wait) = watch::channel(());
        page.claim = Some(wait);
        let windows = page.windows.clone();
        Some(Offer { journal: self.clone(), log, windows, offered, settled: false, refused: false, _done: done })
    }

    /// Gives up what no window sees any more, and if that is too little, the oldest. Answers how many of the latter.
    fn make_room(&self, book: &mut Book, now_ms: u64) -> usize {
        let enough = self.room - self.room / 16;
        let expired: usize = book.pages.values_mut().map(|page| page.expire(now_ms)).sum();
        self.shrink(expired);
        let mut dropped = 0;
        if self.len() >= enough {
            let mut times: Vec<u64> = book.pages.values().flat_map(|page| page.times.iter().copied()).collect();
            let surplus = (self.len() - enough).min(times.len());
            if surplus > 0 {
                let (_, last, _) = times.select_nth_unstable(surplus - 1);
                let last = *last;
                for page in book.pages.values_mut() {
                    let before = page.times.len();
                    page.times.retain(|at_ms| *at_ms > last);
                    dropped += before - page.times.len();
                }
            }
            self.shrink(dropped);
        }
        let Book { pages, queue, .. } = book;
        pages.retain(|_, page| !page.times.is_empty() || page.offered.is_some() || page.claim.is_some());
        queue.retain(|log| pages.contains_key(log));
        dropped
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ms(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_millis() as u64
    }

    /// Both only with the book open.
    fn grow(&self, by: usize) {
        let len = self.len.fetch_add(by, Ordering::Relaxed) + by;
        self.tell(len);
    }

    fn shrink(&self, by: usize) {
        if by > 0 {
            let len = self.len.fetch_sub(by, Ordering::Relaxed) - by;
            self.tell(len);
        }
    }

    fn tell(&self, len: usize) {
        if let Some(metrics) = &self.metrics {
            metrics.waiting.set(len as i64);
        }
    }
}

impl Book {
    /// The page of a log with these limits now.
    fn page(&mut self, log: &[u8], limits: &[Limit]) -> &mut Page {
        let lengths = || limits.iter().map(|limit| limit.window_ms.get());
        if !self.pages.contains_key(log) {
            let log: Arc<[u8]> = log.into();
            self.queue.push_back(log.clone());
            let page = Page {
                times: VecDeque::new(),
                windows: lengths().collect(),
                offered: None,
                claim: None,
                refused_until: None,
            };
            self.pages.insert(log, page);
        }
        let page = self.pages.get_mut(log).expect("it is there, or was made just now");
        if !page.windows.iter().copied().eq(lengths()) {
            page.windows = lengths().collect();
        }
        page
    }
}

impl Page {
    /// Gives up what no window sees any more; answers how many that were.
    fn expire(&mut self, now_ms: u64) -> usize {
        let longest = self.windows.last().copied().map_or(0, u64::from);
        let before = self.times.len();
        self.times.retain(|at_ms| at_ms + longest > now_ms);
        before - self.times.len()
    }
}

#[cfg(test)]
mod tests;
