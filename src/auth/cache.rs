//! Records that were read from Redis: one bounded cache per process, and one look-up at a time per token.
//!
//! There is no cache of unknown tokens: a token must work the moment it was made, and Redis says "unknown" in a microsecond.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use super::changes::{Changes, Epoch};
use super::principal::Principal;
use super::refusal::Refused;
use crate::tokens::{TokenHash, is_id};

type Outcome = Result<Arc<Principal>, Refused>;

/// Bytes that an ordinary record takes in memory. A larger one takes the place of several.
const ORDINARY: u64 = 512;

/// How much of the cache a record takes up: so it is bounded in records and in bytes.
#[derive(Clone)]
pub(super) struct Weight;

impl quick_cache::Weighter<TokenHash, Arc<Principal>> for Weight {
    fn weight(&self, _: &TokenHash, principal: &Arc<Principal>) -> u64 {
        ORDINARY.max(principal.bytes() as u64)
    }
}

/// What the workers of a process know of Redis's tokens together, over all configurations.
pub struct TokenCache {
    pub(super) principals: quick_cache::sync::Cache<TokenHash, Arc<Principal>, Weight>,
    in_flight: Mutex<HashMap<TokenHash, Arc<OnceCell<Outcome>>>>,
    pub(super) changes: Changes,
}

impl TokenCache {
    /// An empty cache for so many records of ordinary size.
    pub fn new(size: usize) -> Self {
        let principals = quick_cache::sync::Cache::with_weighter(size, Self::weight_of(size), Weight);
        Self { principals, in_flight: Mutex::default(), changes: Changes::default() }
    }

    /// Holds so many records from here on.
    pub(crate) fn resize(&self, size: usize) {
        self.principals.set_capacity(Self::weight_of(size));
    }

    fn weight_of(size: usize) -> u64 {
        size as u64 * ORDINARY
    }

    /// How many records are in memory.
    pub(crate) fn len(&self) -> usize {
        self.principals.len()
    }

    /// Notes that a token's record is said to have changed: without Redis, what is cached of it counts no more. Text that is not
    /// an id is ignored.
    pub fn invalidate(&self, token_id: &str) {
        if is_id(token_id) {
            self.changes.changed(token_id);
        }
    }

    /// Notes that Redis, asked in the epoch `asked`, has the version of `principal`.
    pub(super) fn confirm(&self, principal: &Principal, asked: Epoch) {
        principal.confirm_at(asked.now);
        self.changes.redis_answered(asked);
    }

    /// Forgets one version of a record; a newer one that somebody else has read meanwhile stays.
    pub(super) fn remove_version(&self, hash: &TokenHash, version: u64) {
        self.principals.remove_if(hash, |cached| cached.version == version);
    }

    /// Runs `look_up` unless the same token is being looked up already; then that answer is shared.
    ///
    /// An answer that says "no good" is not shared: it may be from before the token was made, and the request from after it.
    pub(super) async fn once<F>(&self, hash: TokenHash, look_up: impl Fn() -> F) -> Outcome
    where
        F: Future<Output = Outcome>,
    {
        let lookup = self.join(hash);
        let mut ran = false;
        let outcome = lookup
            .cell
            .get_or_init(|| {
                ran = true;
                self.confirming(look_up())
            })
            .await
            .clone();
        drop(lookup);
        match outcome {
            Err(refused) if refused.is_invalid() && !ran => self.confirming(look_up()).await,
            outcome => outcome,
        }
    }

    /// Runs a look-up. What it finds is confirmed for the epoch in which it began.
    async fn confirming(&self, look_up: impl Future<Output = Outcome>) -> Outcome {
        let asked = self.changes.epoch();
        let outcome = look_up.await;
        if let Ok(principal) = &outcome {
            self.confirm(principal, asked);
        }
        outcome
    }

    fn join(&self, hash: TokenHash) -> InFlightLookup<'_> {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = in_flight.entry(hash).or_default().clone();
        InFlightLookup { cache: self, hash, cell }
    }
}

/// One request's part in a look-up. The last one to leave, or the first with an answer, takes the look-up off the list.
struct InFlightLookup<'a> {
    cache: &'a TokenCache,
    hash: TokenHash,
    cell: Arc<OnceCell<Outcome>>,
}

impl Drop for InFlightLookup<'_> {
    fn drop(&mut self) {
        let mut in_flight = self.cache.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(listed) = in_flight.get(&self.hash) else { return };
        // Two owners are the list and this one.
        let over = self.cell.initialized() || Arc::strong_count(&self.cell) <= 2;
        if over && Arc::ptr_eq(listed, &self.cell) {
            in_flight.remove(&self.hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::FutureExt;
    use tokio::sync::Notify;

    use super::*;
    use crate::tokens::record_of;
    use crate::tokens::test_plans as plans;

    fn cache() -> TokenCache {
        TokenCache::new(100)
    }

    fn principal() -> Arc<Principal> {
        let record = record_of("secret-token");
        Arc::new(Principal::of(&record, 1, &plans(), std::time::UNIX_EPOCH))
    }

    #[tokio::test]
    async fn requests_that_wait_for_the_same_token_share_one_look_up() {
        let (cache, gate, runs) = (cache(), Notify::new(), AtomicU32::new(0));
        let hash = TokenHash::of("x");
        let look_up = || async {
            runs.fetch_add(1, Ordering::Relaxed);
            gate.notified().await;
            Ok(principal())
        };
        let all = futures_util::future::join_all((0..10).map(|_| cache.once(hash, look_up)));
        let (outcomes, ()) = tokio::join!(all, async { gate.notify_one() });
        assert!(outcomes.iter().all(Result::is_ok));
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        assert!(cache.in_flight.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_request_is_not_refused_by_an_answer_older_than_itself() {
        let (cache, gate, runs) = (cache(), Notify::new(), AtomicU32::new(0));
        let hash = TokenHash::of("x");
        // The first look-up finds nothing; the token is made while its answer is under way.
        let look_up = || async {
            if runs.fetch_add(1, Ordering::Relaxed) == 0 {
                gate.notified().await;
                return Err(Refused::UNKNOWN);
            }
            Ok(principal())
        };
        let (first, second, ()) =
            tokio::join!(cache.once(hash, look_up), cache.once(hash, look_up), async { gate.notify_one() });
        assert!(first.is_err() && second.is_ok());
    }

    #[tokio::test]
    async fn a_record_that_is_announced_while_it_is_read_is_not_known_to_be_current() {
        let (cache, gate) = (cache(), Notify::new());
        cache.changes.subscribed();
        let look_up = || async {
            gate.notified().await;
            Ok(principal())
        };
        let is_current = |principal: &Principal| {
            cache.changes.is_current(&principal.id, principal.confirmed_at(), cache.changes.epoch(), None)
        };
        for (announced, current) in [("abc", false), ("xyz", true), ("cleared abc", true)] {
            let both = async {
                cache.invalidate(announced);
                gate.notify_one();
            };
            let (found, ()) = tokio::join!(cache.once(TokenHash::of("x"), look_up), both);
            let found = found.unwrap();
            assert_eq!(is_current(&found), current, "{announced}");
            // A later decision compares the version.
            cache.confirm(&found, cache.changes.epoch());
            assert!(is_current(&found));
        }
    }

    #[tokio::test]
    async fn a_request_that_goes_away_leaves_nothing_behind() {
        let cache = cache();
        let hash = TokenHash::of("x");
        assert!(cache.once(hash, std::future::pending).now_or_never().is_none());
        assert!(cache.in_flight.lock().unwrap().is_empty());
        assert!(cache.once(hash, || async { Ok(principal()) }).await.is_ok());
    }
}
