//! The admissions that wait to be merged into one log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

/// Admissions of so many moments are merged at once: some milliseconds of Redis's time at the worst, beside what the log
/// itself costs. So many admissions in all.
pub(super) const MAX_BATCH: usize = 1_000;
const MAX_BATCH_UNITS: usize = 65_536;

/// What is to be merged into one log. Times are in milliseconds on the clock of all logs.
#[derive(Default)]
pub(super) struct PendingLog {
    pub(super) times: VecDeque<u64>,
    /// Its limits as the merging script takes them, and the longest window of them.
    pub(super) windows: Arc<[u8]>,
    pub(super) longest_ms: u64,
    /// What was sent to Redis last, until it is known to be there. It keeps its name and is sent again as it is.
    pub(super) sent: Option<Arc<NamedTimes>>,
    /// How many more are [in doubt](super::doubt::Doubt), and who is notified when that changes.
    pub(super) in_doubt: usize,
    pub(super) settled: watch::Sender<bool>,
    /// It is being sent at this moment; the channel closes when that is done.
    pub(super) claim: Option<watch::Receiver<bool>>,
    /// Redis answers, but has refused it: until then no request sends it, only the background does.
    pub(super) refused_until: Option<Instant>,
}

pub(super) struct NamedTimes {
    pub(super) name: [u8; 16],
    /// The latest first.
    pub(super) times: Vec<u64>,
}

impl PendingLog {
    /// Whether nothing is left of it to wait for.
    pub(super) fn is_empty(&self) -> bool {
        self.times.is_empty() && self.sent.is_none() && self.claim.is_none() && self.in_doubt == 0
    }

    /// What is to be sent next, if anything.
    pub(super) fn next_batch(&mut self) -> Option<Arc<NamedTimes>> {
        if self.sent.is_none() && !self.times.is_empty() {
            let count = self.batch_len();
            let mut times: Vec<u64> = self.times.drain(..count).collect();
            times.sort_unstable_by(|a, b| b.cmp(a));
            let mut name = [0; 16];
            fastrand::fill(&mut name);
            self.sent = Some(Arc::new(NamedTimes { name, times }));
        }
        self.sent.clone()
    }

    /// How many of the first admissions make a batch.
    fn batch_len(&self) -> usize {
        let mut moments = 0;
        let mut last = None;
        let is_too_many = |at_ms: &u64| {
            moments += usize::from(last.replace(*at_ms) != Some(*at_ms));
            moments > MAX_BATCH
        };
        self.times.iter().position(is_too_many).unwrap_or(self.times.len()).min(MAX_BATCH_UNITS)
    }

    /// Drops what no window sees any more; returns how many admissions that were.
    pub(super) fn expire(&mut self, now_ms: u64) -> usize {
        let longest_ms = self.longest_ms;
        self.retain(|at_ms| at_ms + longest_ms > now_ms)
    }

    /// Drops all but some; returns how many admissions that were.
    pub(super) fn retain(&mut self, keep: impl Fn(u64) -> bool) -> usize {
        let before = self.times.len();
        self.times.retain(|at_ms| keep(*at_ms));
        before - self.times.len()
    }
}
