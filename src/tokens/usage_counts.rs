//! How tokens are used, counted in memory until it is saved.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use foldhash::fast::RandomState;

use super::date::Date;
use super::hour::Hour;
use super::recent_refusals::RecentRefusals;
use crate::sharded::Sharded;

/// Tokens whose use is remembered between two writes, at some 80 bytes each. The use of more is not counted.
const MAX_TOKENS: usize = 1_000_000;
/// Enough that two workers seldom want the same one.
const SHARDS: usize = 32;

/// How a token was used in one hour since that was saved last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NewUsage {
    pub(super) hour: Hour,
    /// Requests that were admitted.
    pub(super) requests: u64,
    /// Requests that its limits refused.
    pub(super) refused: u64,
    /// When a request was last admitted.
    pub(super) last: Option<Date>,
}

type Uses = HashMap<Arc<str>, NewUsage, RandomState>;

#[derive(Default)]
struct Shard {
    uses: Uses,
    /// Those of hours that are over.
    earlier: Vec<(Arc<str>, NewUsage)>,
}

/// The use of all tokens since it was written last; one for all workers.
pub struct UsageCounts {
    shards: Sharded<Shard, SHARDS>,
    len: AtomicUsize,
    max_tokens: usize,
    recent: RecentRefusals,
}

impl Default for UsageCounts {
    fn default() -> Self {
        Self::of(MAX_TOKENS)
    }
}

impl UsageCounts {
    fn of(max_tokens: usize) -> Self {
        let (shards, recent) = (Sharded::default(), RecentRefusals::default());
        Self { shards, len: AtomicUsize::new(0), max_tokens, recent }
    }

    /// A request of this token was admitted then.
    pub fn note(&self, id: &Arc<str>, at: SystemTime) {
        let last = Some(Date::new(at));
        self.add(id, NewUsage { hour: Hour::of(at), requests: 1, refused: 0, last });
    }

    /// The limits of this token refused a request then.
    pub(crate) fn note_refused(&self, id: &Arc<str>, at: SystemTime) {
        self.add(id, NewUsage { hour: Hour::of(at), requests: 0, refused: 1, last: None });
    }

    pub(super) fn add(&self, id: &Arc<str>, new: NewUsage) {
        let mut shard = self.shards.lock(id);
        let Shard { uses, earlier } = &mut *shard;
        match uses.get_mut(id) {
            Some(known) if known.hour == new.hour => {
                known.requests += new.requests;
                known.refused += new.refused;
                known.last = known.last.max(new.last);
            }
            // One hour is over, or what could not be saved then comes back.
            Some(known) if self.takes_one_more() => {
                let of_earlier = if known.hour < new.hour { std::mem::replace(known, new) } else { new };
                earlier.push((id.clone(), of_earlier));
            }
            None if self.takes_one_more() => {
                uses.insert(id.clone(), new);
            }
            Some(_) | None => {}
        }
    }

    fn takes_one_more(&self) -> bool {
        let takes = self.len.fetch_add(1, Ordering::Relaxed) < self.max_tokens;
        if !takes {
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
        takes
    }

    /// All that is to be written.
    pub(super) fn take(&self) -> Vec<(Arc<str>, NewUsage)> {
        let mut taken = Vec::new();
        for mut shard in self.shards.iter() {
            // The lock is held for an exchange, not for a walk.
            let Shard { uses, earlier } = std::mem::take(&mut *shard);
            drop(shard);
            self.len.fetch_sub(uses.len() + earlier.len(), Ordering::Relaxed);
            taken.extend(earlier);
            taken.extend(uses);
        }
        taken
    }

    /// Remembers for an hour what was refused, once it is written.
    pub(super) fn remember_refused(&self, written: &[(Arc<str>, NewUsage)], now: SystemTime) {
        let refused = written.iter().map(|(id, new)| (id.clone(), new.refused));
        self.recent.add(refused.filter(|(_, refused)| *refused > 0), now);
    }

    /// The tokens of this process with the most refused requests of the last hour.
    pub(super) fn most_refused(&self, limit: usize, now: SystemTime) -> Vec<(Arc<str>, u64)> {
        self.recent.most(limit, now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn admitted(requests: u64, second: u64) -> NewUsage {
        NewUsage { hour: Hour::of(at(second)), requests, refused: 0, last: Some(Date::new(at(second))) }
    }

    #[test]
    fn uses_add_up_and_are_taken_once() {
        let (book, id) = (UsageCounts::default(), Arc::from("abc"));
        for second in [7, 9, 8] {
            book.note(&id, at(second));
        }
        assert_eq!(book.take(), [(id.clone(), admitted(3, 9))]);
        assert!(book.take().is_empty());
        book.add(&id, admitted(3, 9));
        book.note(&id, at(8));
        book.note_refused(&id, at(10));
        assert_eq!(book.take(), [(id, NewUsage { refused: 1, ..admitted(4, 9) })]);
    }

    #[test]
    fn each_hour_is_counted_by_itself() {
        let (book, id) = (UsageCounts::default(), Arc::from("abc"));
        book.note(&id, at(3_599));
        book.note(&id, at(3_600));
        // It could not be saved then.
        book.add(&id, admitted(5, 100));
        let mut taken = book.take();
        taken.sort_by_key(|(_, new)| (new.hour, new.requests));
        let taken: Vec<NewUsage> = taken.into_iter().map(|(_, new)| new).collect();
        assert_eq!(taken, [admitted(1, 3_599), admitted(5, 100), admitted(1, 3_600)]);
        assert!(book.take().is_empty());
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

    #[test]
    fn what_was_refused_is_known_for_an_hour() {
        let book = UsageCounts::default();
        let refuse =
            |id: &str, count: u64, second: u64| (0..count).for_each(|_| book.note_refused(&Arc::from(id), at(second)));
        refuse("a", 3, 1);
        refuse("b", 5, 1);
        book.remember_refused(&book.take(), at(60));
        refuse("a", 3, 100);
        book.remember_refused(&book.take(), at(120));
        let most = |limit, second| {
            let most = book.most_refused(limit, at(second));
            most.into_iter().map(|(id, refused)| format!("{id} {refused}")).collect::<Vec<_>>()
        };
        assert_eq!(most(9, 200), ["a 6", "b 5"]);
        assert_eq!(most(1, 200), ["a 6"]);
        assert_eq!(most(9, 60 + 3_601), ["a 3"]);
        assert_eq!(most(9, 120 + 3_601), [""; 0]);
    }
}
