//! Which tokens were refused the most in the last hour, by this process.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// How long.
const WINDOW: Duration = Duration::from_secs(3_600);
/// Tokens that are remembered of each batch: those that were refused the most.
const MAX_TOKENS: usize = 200;

type Batch = Vec<(Arc<str>, u64)>;

/// Refused requests by token, batch by batch.
#[derive(Default)]
pub(super) struct RecentRefusals(Mutex<VecDeque<(SystemTime, Batch)>>);

impl RecentRefusals {
    /// Remembers a batch that ends now.
    pub(super) fn add(&self, refused: impl Iterator<Item = (Arc<str>, u64)>, now: SystemTime) {
        let batch = most(refused.collect(), MAX_TOKENS);
        let mut batches = self.recent(now);
        if !batch.is_empty() {
            batches.push_back((now, batch));
        }
    }

    /// The tokens that were refused the most.
    pub(super) fn most(&self, limit: usize, now: SystemTime) -> Batch {
        let mut sums = HashMap::<Arc<str>, u64>::new();
        for (id, refused) in self.recent(now).iter().flat_map(|(_, batch)| batch) {
            *sums.entry(id.clone()).or_default() += refused;
        }
        most(sums.into_iter().collect(), limit)
    }

    fn recent(&self, now: SystemTime) -> MutexGuard<'_, VecDeque<(SystemTime, Batch)>> {
        let mut batches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while batches.front().is_some_and(|(at, _)| now.duration_since(*at).is_ok_and(|age| age > WINDOW)) {
            batches.pop_front();
        }
        batches
    }
}

/// Those with the largest numbers, the largest first.
pub(super) fn most(mut refused: Batch, limit: usize) -> Batch {
    refused.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    refused.truncate(limit);
    refused
}
