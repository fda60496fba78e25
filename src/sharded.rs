//! A value in several parts, each behind a lock of its own: threads that need different keys seldom wait for each other.

use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

/// `N` parts of a whole; a key belongs to one of them by its hash.
pub(crate) struct Sharded<T, const N: usize> {
    hasher: RandomState,
    shards: [Shard<T>; N],
}

/// On two cache lines of its own, so that neighbours don't slow each other down.
#[repr(align(128))]
struct Shard<T>(Mutex<T>);

impl<T, const N: usize> Sharded<T, N> {
    /// Makes each part; a part that hashes its keys itself can use the same hasher.
    pub(crate) fn new(make: impl Fn(&RandomState) -> T) -> Self {
        let hasher = RandomState::default();
        Self { shards: std::array::from_fn(|_| Shard(Mutex::new(make(&hasher)))), hasher }
    }

    pub(crate) fn hash(&self, key: &(impl Hash + ?Sized)) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The part for keys with this hash.
    pub(crate) fn lock_hashed(&self, hash: u64) -> MutexGuard<'_, T> {
        // A hash table inside uses the lowest and the highest bits.
        self.shards[(hash >> 40) as usize % N].lock()
    }

    /// The part for a key.
    pub(crate) fn lock(&self, key: &(impl Hash + ?Sized)) -> MutexGuard<'_, T> {
        self.lock_hashed(self.hash(key))
    }

    /// All parts, one after the other.
    pub(crate) fn iter(&self) -> impl Iterator<Item = MutexGuard<'_, T>> {
        self.shards.iter().map(Shard::lock)
    }
}

impl<T: Default, const N: usize> Default for Sharded<T, N> {
    fn default() -> Self {
        Self::new(|_| T::default())
    }
}

impl<T> Shard<T> {
    fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_shard_and_keys_spread() {
        let sharded = Sharded::<Vec<u32>, 16>::default();
        (0..1_000).for_each(|key| sharded.lock(&key).push(key));
        assert!((0..1_000).all(|key| sharded.lock(&key).contains(&key)));
        assert_eq!(sharded.iter().map(|shard| shard.len()).sum::<usize>(), 1_000);
        assert!(sharded.iter().all(|shard| shard.len() < 200));
    }
}
