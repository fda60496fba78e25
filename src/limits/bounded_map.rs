//! A bounded, sharded map from token ids to something small.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use foldhash::fast::RandomState;
use indexmap::IndexMap;
use indexmap::map::raw_entry_v1::RawEntryApiV1;

use crate::sharded::Sharded;

const SHARDS: usize = 64;
/// A full shard picks so many of its entries at random and drops one of them.
const SAMPLE: usize = 8;

/// A map of at most a fixed number of entries.
pub(super) struct BoundedMap<V> {
    shards: Sharded<MapShard<V>, SHARDS>,
    max_per_shard: AtomicUsize,
    /// Entries of some worth that were evicted.
    evicted: AtomicU64,
}

struct MapShard<V> {
    entries: IndexMap<Box<str>, V, RandomState>,
    /// Where the next sweep goes on.
    cursor: usize,
}

impl<V> BoundedMap<V> {
    /// A map of at most `entries` entries, rounded up to a multiple of the shards.
    pub(super) fn new(entries: usize) -> Self {
        Self {
            shards: Sharded::new(|hasher| MapShard { entries: IndexMap::with_hasher(hasher.clone()), cursor: 0 }),
            max_per_shard: AtomicUsize::new(Self::per_shard(entries)),
            evicted: AtomicU64::new(0),
        }
    }

    fn per_shard(entries: usize) -> usize {
        entries.div_ceil(SHARDS).clamp(1, u32::MAX as usize)
    }

    /// Holds at most so many entries from here on. Entries beyond that leave as others come, two for each.
    pub(super) fn resize(&self, entries: usize) {
        self.max_per_shard.store(Self::per_shard(entries), Ordering::Relaxed);
    }

    /// Uses the entry of `id`, if there is one.
    pub(super) fn with<R>(&self, id: &str, f: impl FnOnce(&mut V) -> R) -> Option<R> {
        let hash = self.shards.hash(id);
        let mut shard = self.shards.lock_hashed(hash);
        let index = shard.find(hash, id)?;
        Some(f(&mut shard.entries[index]))
    }

    /// Uses the entry of `id`, made if need be. If its shard is full, the entry of least `worth` among a few is evicted; one that
    /// is worth nothing is no loss.
    pub(super) fn with_entry<R, W: Ord + Default>(
        &self,
        id: &str,
        make: impl FnOnce() -> V,
        worth: impl Fn(&V) -> W,
        f: impl FnOnce(&mut V) -> R,
    ) -> R {
        let hash = self.shards.hash(id);
        let mut shard = self.shards.lock_hashed(hash);
        let index = match shard.find(hash, id) {
            Some(index) => index,
            None => {
                let beyond = (shard.entries.len() + 1).saturating_sub(self.max_per_shard.load(Ordering::Relaxed));
                for _ in 0..beyond.min(2) {
                    if shard.evict(&worth) > Some(W::default()) {
                        self.evicted.fetch_add(1, Ordering::Relaxed);
                    }
                }
                shard.entries.insert_full(id.into(), make()).0
            }
        };
        f(&mut shard.entries[index])
    }

    /// Drops the entry of `id`.
    pub(super) fn remove(&self, id: &str) {
        self.shards.lock(id).entries.swap_remove(id);
    }

    /// Checks the next `per_shard` entries of each shard and drops those that are not to be kept.
    pub(super) fn sweep(&self, per_shard: usize, keep: impl Fn(&V) -> bool) {
        for mut shard in self.shards.iter() {
            let MapShard { entries, cursor } = &mut *shard;
            for _ in 0..per_shard.min(entries.len()) {
                if *cursor >= entries.len() {
                    *cursor = 0;
                }
                if keep(&entries[*cursor]) {
                    *cursor += 1;
                } else {
                    // The last entry moves here and is the next to be checked.
                    entries.swap_remove_index(*cursor);
                }
            }
            if entries.capacity() > 64 && entries.len() < entries.capacity() / 4 {
                entries.shrink_to(entries.capacity() / 2);
            }
        }
    }

    /// What `collect` makes of the entries of each shard, one after the other.
    pub(super) fn shards<R>(
        &self,
        mut collect: impl FnMut(&mut dyn Iterator<Item = (&str, &V)>) -> R,
    ) -> impl Iterator<Item = R> {
        self.shards.iter().map(move |shard| collect(&mut shard.entries.iter().map(|(id, value)| (&**id, value))))
    }

    /// How many entries of some worth were evicted since the last time.
    pub(super) fn take_evicted(&self) -> u64 {
        self.evicted.swap(0, Ordering::Relaxed)
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.entries.len()).sum()
    }
}

impl<V> MapShard<V> {
    fn find(&self, hash: u64, id: &str) -> Option<usize> {
        self.entries.raw_entry_v1().index_from_hash(hash, |known| **known == *id)
    }

    /// Makes room for one entry; returns what the evicted one was worth.
    fn evict<W: Ord>(&mut self, worth: impl Fn(&V) -> W) -> Option<W> {
        let sample = (0..SAMPLE).map(|_| fastrand::usize(..self.entries.len()));
        let (least, index) = sample.map(|index| (worth(&self.entries[index]), index)).min()?;
        self.entries.swap_remove_index(index);
        Some(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_it_was_given() {
        let map = BoundedMap::new(1_000_000);
        for i in 0..10_000u32 {
            map.with_entry(&i.to_string(), || i, |v| *v, |_| ());
        }
        assert_eq!(map.len(), 10_000);
        assert!((0..10_000u32).all(|i| map.with(&i.to_string(), |v| *v) == Some(i)));
        map.sweep(usize::MAX, |v| v % 3 != 0);
        map.remove("1");
        for i in 0..10_000u32 {
            let expected = (i % 3 != 0 && i != 1).then_some(i);
            assert_eq!(map.with(&i.to_string(), |v| *v), expected, "{i}");
        }
    }

    #[test]
    fn is_bounded_and_gives_up_the_least_worthy() {
        let map = BoundedMap::new(64 * 16);
        for i in 0..20_000u32 {
            map.with_entry(&i.to_string(), || i, |v| *v, |_| ());
        }
        assert_eq!(map.len(), 64 * 16);
        let recent = (15_000..20_000u32).filter(|i| map.with(&i.to_string(), |_| ()).is_some()).count();
        assert!(recent > 64 * 15, "only {recent} of the younger survive");
    }

    #[test]
    fn sweeps_a_bounded_part_at_a_time() {
        let map = BoundedMap::new(1_000_000);
        for i in 0..64_000u32 {
            map.with_entry(&i.to_string(), || i, |v| *v, |_| ());
        }
        map.sweep(10, |_| false);
        assert_eq!(map.len(), 64_000 - 640);
        for _ in 0..200 {
            map.sweep(10, |_| false);
        }
        assert_eq!(map.len(), 0);
    }
}
