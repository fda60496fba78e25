//! How tokens are used, counted in memory until it is saved.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use foldhash::fast::RandomState;

use super::date::Date;
use crate::sharded::Sharded;

/// Tokens whose use is remembered between two writes, at some 80 bytes each. The use of more is not counted.
const MAX_TOKENS: usize = 1_000_000;
/// Enough that two workers seldom want the same one.
const SHARDS: usize = 32;

/// How a token was used since that was saved last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NewUsage {
    pub(super) requests: u64,
    pub(super) last: Date,
}

type Uses = HashMap<Arc<str>, NewUsage, RandomState>;

/// The use of all tokens since it was written last; one for all workers.
pub struct UsageCounts {
    shards: Sharded<Uses, SHARDS>,
    len: AtomicUsize,
    max_tokens: usize,
}

impl Default for UsageCounts {
    fn default() -> Self {
        Self::of(MAX_TOKENS)
    }
}

impl UsageCounts {
    fn of(max_tokens: usize) -> Self {
        Self { shards: Sharded::default(), len: AtomicUsize::new(0), max_tokens }
    }

    /// A request of this token was admitted then.
    pub fn note(&self, id: &Arc<str>, at: SystemTime) {
        self.add(id, NewUsage { requests: 1, last: Date::new(at) });
    }

    pub(super) fn add(&self, id: &Arc<str>, new: NewUsage) {
        let mut uses = self.shards.lock(id);
        if let Some(known) = uses.get_mut(id) {
            known.requests += new.requests;
            known.last = known.last.max(new.last);
        } else if self.len.fetch_add(1, Ordering::Relaxed) < self.max_tokens {
            uses.insert(id.clone(), new);
        } else {
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// All that is to be written.
    pub(super) fn take(&self) -> Vec<(Arc<str>, NewUsage)> {
        let mut taken = Vec::new();
        for mut shard in self.shards.iter() {
            // The lock is held for an exchange, not for a walk.
            let uses = std::mem::take(&mut *shard);
            drop(shard);
            self.len.fetch_sub(uses.len(), Ordering::Relaxed);
            taken.extend(uses);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn uses_add_up_and_are_taken_once() {
        let (book, id) = (UsageCounts::default(), Arc::from("abc"));
        for second in [7, 9, 8] {
            book.note(&id, at(second));
        }
        assert_eq!(book.take(), [(id.clone(), NewUsage { requests: 3, last: Date::new(at(9)) })]);
        assert!(book.take().is_empty());
        book.add(&id, NewUsage { requests: 3, last: Date::new(at(9)) });
        book.note(&id, at(8));
        assert_eq!(book.take(), [(id, NewUsage { requests: 4, last: Date::new(at(9)) })]);
    }

    #[test]
    fn full_counts_go_on_for_known_tokens_only() {
        let book = UsageCounts::of(2);
        for id in ["a", "b", "c", "a", "c"] {
            book.note(&Arc::from(id), at(1));
        }
        let mut taken: Vec<_> = book.take().into_iter().map(|(id, new)| (id.to_string(), new.requests)).collect();
        taken.sort();
        assert_eq!(taken, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
        book.note(&Arc::from("c"), at(1));
        assert_eq!(book.take().len(), 1);
    }
}
