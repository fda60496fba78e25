//! What this process admitted by itself while Redis did not answer, until it is merged into the logs there.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::config::Limit;
use crate::telemetry::MergeMetrics;

/// Admissions that it holds, at 8 bytes each and some 200 for each log.
const ROOM: usize = 1_000_000;
/// So many admissions are merged at once: some milliseconds of Redis's time at the worst.
const OFFER: usize = 1_000;
/// In the background, so many logs at one time, and so often.
const BATCH: (usize, Duration) = (32, Duration::from_millis(10));

/// The admissions of a process that Redis does not know of yet, by the keys of the logs that they belong into; one for all workers. Of a bounded size: when it is full, the
/// oldest are given up, so that their tokens may be admitted that much too often.
pub struct Journal {
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
    /// … the next part of it.
    Offer(Offer),
}

/// Admissions to be merged into one log, by who holds this and by nobody else. Unless it is [`Offer::settle`]d they are
/// offered again.
pub(super) struct Offer {
    journal: Arc<Journal>,
    log: Arc<[u8]>,
    windows: Arc<[u32]>,
    offered: Arc<Offered>,
    settled: bool,
    /// Dropped, it tells who waits.
    _done: watch::Sender<()>,
}

impl Default for Journal {
    fn default() -> Self {
        Self::of(ROOM, None)
    }
}

impl Journal {
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
        match book.pages.get(log).map(|page| page.claim.clone()) {
            None => Claim::Nothing,
            Some(Some(taken)) => Claim::Taken(taken),
            Some(None) => self.offer(&mut book, log, now).map_or(Claim::Nothing, Claim::Offer),
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
        Some(Offer { journal: self.clone(), log, windows, offered, settled: false, _done: done })
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
            let page = Page { times: VecDeque::new(), windows: lengths().collect(), offered: None, claim: None };
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

impl Offer {
    /// The log's key.
    pub(super) fn log(&self) -> &[u8] {
        &self.log
    }

    /// Its name, the same when it is offered again.
    pub(super) fn name(&self) -> &[u8] {
        &self.offered.name
    }

    /// The windows of its limits, 4 bytes each.
    pub(super) fn windows(&self) -> Vec<u8> {
        self.windows.iter().flat_map(|length| length.to_le_bytes()).collect()
    }

    /// How many milliseconds before `now` each admission was, the latest first, 4 bytes each.
    pub(super) fn ages(&self, now: Instant) -> Vec<u8> {
        let now_ms = self.journal.ms(now);
        let age = |at_ms: &u64| u32::try_from(now_ms.saturating_sub(*at_ms)).unwrap_or(u32::MAX);
        self.offered.times.iter().flat_map(|at_ms| age(at_ms).to_le_bytes()).collect()
    }

    /// Redis has them.
    pub(super) fn settle(mut self) {
        self.settled = true;
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        let mut book = self.journal.book();
        let Some(page) = book.pages.get_mut(&self.log) else { return };
        page.claim = None;
        if !self.settled {
            return;
        }
        page.offered = None;
        let is_last = page.times.is_empty();
        if is_last {
            book.pages.remove(&self.log);
            if book.pages.is_empty() {
                book.queue = VecDeque::new();
            }
        }
        let admissions = self.offered.times.len();
        book.merged.admissions += admissions;
        book.merged.logs += usize::from(is_last);
        self.journal.shrink(admissions);
        if let Some(metrics) = &self.journal.metrics {
            metrics.merged.inc_by(admissions as u64);
        }
    }
}

#[cfg(test)]
mod tests;
