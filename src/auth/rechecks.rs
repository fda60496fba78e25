//! Which tokens with open calls are said to have changed, so that their records are read again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// Of so many groups of tokens is known when one of them was last announced to have changed.
const GROUPS: usize = 1_024;

pub(super) struct Rechecks {
    /// How many announcements there have been.
    era: AtomicU64,
    /// The last one for each group of tokens.
    announced: Box<[AtomicU64]>,
    pending: Mutex<BTreeSet<Arc<str>>>,
    added: Notify,
}

impl Default for Rechecks {
    fn default() -> Self {
        let announced = (0..GROUPS).map(|_| AtomicU64::new(0)).collect();
        Self { era: AtomicU64::new(0), announced, pending: Mutex::default(), added: Notify::new() }
    }
}

impl Rechecks {
    /// The present moment, counted in announcements.
    pub(super) fn era(&self) -> u64 {
        self.era.load(Ordering::Acquire)
    }

    /// Notes that the record of a token is said to have changed.
    pub(super) fn announce(&self, token_id: &str) {
        let era = self.era.fetch_add(1, Ordering::AcqRel) + 1;
        self.last_announced(token_id).store(era, Ordering::Release);
    }

    /// Whether the token, or another one of its group, was announced after `era`.
    pub(super) fn is_announced_since(&self, token_id: &str, era: u64) -> bool {
        self.last_announced(token_id).load(Ordering::Acquire) > era
    }

    pub(super) fn add(&self, token_id: &str) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(token_id.into());
        self.added.notify_one();
    }

    /// The tokens to look at again, as soon as there are any.
    pub(super) async fn next(&self) -> BTreeSet<Arc<str>> {
        self.added.notified().await;
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn last_announced(&self, token_id: &str) -> &AtomicU64 {
        &self.announced[crc32fast::hash(token_id.as_bytes()) as usize % GROUPS]
    }
}
