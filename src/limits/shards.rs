//! A bounded map from token ids to something small, sharded so that workers seldom meet.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Enough that two workers seldom want the same one.
const SHARDS: usize = 64;
/// A full shard looks at so many of its entries, picked at random, for one to give up.
const SAMPLE: usize = 8;

/// A map of at most a fixed number of entries.
pub(super) struct Shards<V> {
    hasher: RandomState,
    shards: Box<[Lane<V>]>,
    /// Entries that a shard may hold.
    room: usize,
    /// Entries of some worth that had to make room.
    lost: AtomicU64,
}

/// Its own pair of cache lines, so that neighbours don't slow each other down.
#[repr(align(128))]
struct Lane<V>(Mutex<Shard<V>>);

struct Shard<V> {
    /// Places in `entries`.
    index: HashTable<u32>,
    entries: Vec<Entry<V>>,
    /// Where the next sweep goes on.
    cursor: usize,
}

struct Entry<V> {
    hash: u64,
    id: Box<str>,
    value: V,
}

impl<V> Shards<V> {
    /// A map of at most `entries` entries, rounded up to a multiple of the shards.
    pub(super) fn new(entries: usize) -> Self {
        let shard = || Lane(Mutex::new(Shard { index: HashTable::new(), entries: Vec::new(), cursor: 0 }));
        Self {
            hasher: RandomState::default(),
            shards: (0..SHARDS).map(|_| shard()).collect(),
            room: entries.div_ceil(SHARDS).clamp(1, u32::MAX as usize),
            lost: AtomicU64::new(0),
        }
    }

    /// Uses the entry of `id`, if there is one.
    pub(super) fn with<R>(&self, id: &str, f: impl FnOnce(&mut V) -> R) -> Option<R> {
        let hash = self.hasher.hash_one(id);
        let mut shard = self.shard(hash);
        let at = shard.find(hash, id)?;
        Some(f(&mut shard.entries[at].value))
    }

    /// Uses the entry of `id`, made if need be. If its shard is full, the entry of least `worth` among a few goes; one that is worth
    /// nothing is no loss.
    pub(super) fn with_entry<R, W: Ord + Default>(
        &self,
        id: &str,
        make: impl FnOnce() -> V,
        worth: impl Fn(&V) -> W,
        f: impl FnOnce(&mut V) -> R,
    ) -> R {
        let hash = self.hasher.hash_one(id);
        let mut shard = self.shard(hash);
        let at = match shard.find(hash, id) {
            Some(at) => at,
            None => {
                if shard.entries.len() >= self.room && shard.evict(worth) > Some(W::default()) {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                }
                shard.insert(hash, id, make())
            }
        };
        f(&mut shard.entries[at].value)
    }

    /// Forgets the entry of `id`.
    pub(super) fn remove(&self, id: &str) {
        let hash = self.hasher.hash_one(id);
        let mut shard = self.shard(hash);
        if let Some(at) = shard.find(hash, id) {
            shard.remove(at);
        }
    }

    /// Looks at the next `per_shard` entries of each shard and drops those that are not to be kept.
    pub(super) fn sweep(&self, per_shard: usize, keep: impl Fn(&V) -> bool) {
        for lane in &self.shards {
            let mut shard = lane.0.lock().unwrap_or_else(PoisonError::into_inner);
            for _ in 0..per_shard.min(shard.entries.len()) {
                if shard.cursor >= shard.entries.len() {
                    shard.cursor = 0;
                }
                let at = shard.cursor;
                if keep(&shard.entries[at].value) {
                    shard.cursor += 1;
                } else {
                    // The last entry takes its place and is looked at next.
                    shard.remove(at);
                }
            }
            if shard.entries.capacity() > 64 && shard.entries.len() < shard.entries.capacity() / 4 {
                let half = shard.entries.capacity() / 2;
                shard.entries.shrink_to(half);
                let Shard { index, entries, .. } = &mut *shard;
                index.shrink_to(half, |&at| entries[at as usize].hash);
            }
        }
    }

    /// How many entries of some worth had to make room since this was asked last.
    pub(super) fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|lane| lane.0.lock().unwrap_or_else(PoisonError::into_inner).entries.len()).sum()
    }

    fn shard(&self, hash: u64) -> std::sync::MutexGuard<'_, Shard<V>> {
        // The table inside uses the lowest and the highest bits.
        let lane = &self.shards[(hash >> 40) as usize % SHARDS];
        lane.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> Shard<V> {
    fn find(&self, hash: u64, id: &str) -> Option<usize> {
        self.index.find(hash, |&at| *self.entries[at as usize].id == *id).map(|&at| at as usize)
    }

    fn insert(&mut self, hash: u64, id: &str, value: V) -> usize {
        let at = self.entries.len();
        self.entries.push(Entry { hash, id: id.into(), value });
        let entries = &self.entries;
        self.index.insert_unique(hash, at as u32, |&at| entries[at as usize].hash);
        at
    }

    fn remove(&mut self, at: usize) {
        self.forget_place(at, self.entries[at].hash);
        self.entries.swap_remove(at);
        if let Some(moved) = self.entries.get(at) {
            let from = self.entries.len() as u32;
            if let Some(place) = self.index.find_mut(moved.hash, |&place| place == from) {
                *place = at as u32;
            }
        }
    }

    fn forget_place(&mut self, at: usize, hash: u64) {
        if let Ok(place) = self.index.find_entry(hash, |&place| place as usize == at) {
            place.remove();
        }
    }

    /// Makes room for one entry; what the one was worth that went.
    fn evict<W: Ord>(&mut self, worth: impl Fn(&V) -> W) -> Option<W> {
        let entries = self.entries.len();
        let sample = (0..SAMPLE).map(|_| fastrand::usize(..entries));
        let (least, at) = sample.map(|at| (worth(&self.entries[at].value), at)).min()?;
        self.remove(at);
        Some(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_it_was_given() {
        let map = Shards::new(1_000_000);
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
        let map = Shards::new(64 * 16);
        for i in 0..20_000u32 {
            map.with_entry(&i.to_string(), || i, |v| *v, |_| ());
        }
        assert_eq!(map.len(), 64 * 16);
        let recent = (15_000..20_000u32).filter(|i| map.with(&i.to_string(), |_| ()).is_some()).count();
        assert!(recent > 64 * 15, "only {recent} of the younger survive");
    }

    #[test]
    fn sweeps_a_bounded_part_at_a_time() {
        let map = Shards::new(1_000_000);
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
