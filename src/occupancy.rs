//! How much of something each key holds at the moment: connections of a client, requests of a token.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::sharded::Sharded;

const SHARDS: usize = 16;

/// Counts by key. A key that holds nothing takes no memory.
pub(crate) struct Occupancy<K> {
    shards: Sharded<HashMap<K, u32, RandomState>, SHARDS>,
}

/// One of what its key holds. Dropped, it is given back.
pub(crate) struct Occupied<K: Hash + Eq> {
    all: Arc<Occupancy<K>>,
    key: K,
}

impl<K> Default for Occupancy<K> {
    fn default() -> Self {
        Self { shards: Sharded::default() }
    }
}

impl<K: Hash + Eq + Clone> Occupancy<K> {
    /// One more for this key; `None` if it holds `max` already.
    pub(crate) fn take(self: &Arc<Self>, key: K, max: u32) -> Option<Occupied<K>> {
        let mut counts = self.shards.lock(&key);
        let held = counts.get(&key).copied().unwrap_or(0);
        if held >= max {
            return None;
        }
        counts.insert(key.clone(), held + 1);
        Some(Occupied { all: self.clone(), key })
    }
}

impl<K: Hash + Eq> Drop for Occupied<K> {
    fn drop(&mut self) {
        let mut counts = self.all.shards.lock(&self.key);
        if let Some(held) = counts.get_mut(&self.key) {
            *held -= 1;
            if *held == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_holds_as_many_as_it_may_and_nothing_is_left_of_it() {
        let all = Arc::<Occupancy<u32>>::default();
        let mut held: Vec<_> = (0..2).filter_map(|_| all.take(7, 2)).collect();
        assert!(held.len() == 2 && all.take(7, 2).is_none());
        assert!(all.take(8, 2).is_some(), "another key");
        held.pop();
        assert!(all.take(7, 2).is_some());
        held.clear();
        assert!(all.shards.iter().all(|counts| counts.is_empty()));
    }
}
