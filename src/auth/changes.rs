//! Which cached records are known to be current: what was announced to have changed, and since when nothing can have been missed.
//!
//! Each announcement begins a new epoch, and so does each beginning and end of the subscription. A record is confirmed for the
//! epoch in which Redis was asked, not for that of the answer: an announcement may have come in between.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};
use std::time::Instant;

/// Tokens whose last announcement is remembered. One more, and all records must be confirmed anew.
const MAX_CHANGED: usize = 100_000;
/// Remembered values of `trusted_since`. Older ones count as the oldest of these.
const MAX_RAISES: usize = 16;
/// This bit is set in epochs without a subscription.
const UNSUBSCRIBED: u64 = 1;
const NEVER: u64 = u64::MAX;

/// The state of things when Redis is asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epoch {
    pub(super) now: u64,
    trusted_since: u64,
}

/// The announcements that this process has received, and whether it may have missed some.
///
/// Every request reads the first two fields, so nothing else shares their cache lines.
#[repr(align(128))]
pub(super) struct Changes {
    now: AtomicU64,
    /// A change of a record that was confirmed earlier may have been missed.
    trusted_since: AtomicU64,
    announcements: RwLock<Announcements>,
}

#[derive(Default)]
struct Announcements {
    /// The epoch of each token's last announcement.
    changed: HashMap<Box<str>, u64>,
    /// Announcements up to this epoch are forgotten.
    forgotten: u64,
    /// When `trusted_since` was raised, and its value before.
    raises: Vec<(Instant, u64)>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            now: AtomicU64::new(UNSUBSCRIBED),
            trusted_since: AtomicU64::new(NEVER),
            announcements: RwLock::default(),
        }
    }
}

impl Epoch {
    fn is_unsubscribed(self) -> bool {
        self.now & UNSUBSCRIBED != 0
    }
}

impl Changes {
    /// The present epoch. Take it before Redis is asked.
    pub(super) fn epoch(&self) -> Epoch {
        let trusted_since = self.trusted_since.load(Ordering::Relaxed);
        Epoch { now: self.now.load(Ordering::Acquire), trusted_since }
    }

    /// The record of this token has changed.
    pub(super) fn changed(&self, token_id: &str) {
        let mut announcements = self.lock();
        let now = self.advance(2);
        if announcements.changed.len() >= MAX_CHANGED {
            announcements.changed.clear();
            announcements.forgotten = now;
        }
        announcements.changed.insert(token_id.into(), now);
    }

    /// From here on announcements are received. Earlier ones may have been missed.
    pub(super) fn subscribed(&self) {
        let mut announcements = self.lock();
        let now = self.advance(if self.epoch().is_unsubscribed() { 1 } else { 2 });
        self.raise(&mut announcements, now);
    }

    /// From here on no announcement is received. If Redis is down too, there is none.
    pub(super) fn subscription_lost(&self) {
        let _announcements = self.lock();
        self.advance(if self.epoch().is_unsubscribed() { 2 } else { 1 });
    }

    /// Redis has answered a question of the epoch `asked`. Without a subscription then, changes may have been missed.
    pub(super) fn redis_answered(&self, asked: Epoch) {
        if !asked.is_unsubscribed() || self.trusted_since.load(Ordering::Relaxed) == NEVER {
            return;
        }
        let mut announcements = self.lock();
        if self.epoch().is_unsubscribed() {
            self.raise(&mut announcements, NEVER);
        }
    }

    /// Whether a token's record, last confirmed in the epoch `confirmed`, is known to have been current when the outage began:
    /// when Redis was asked, in the epoch `asked`, or when the asking worker lost its connection, if that was earlier. (Other
    /// workers may have been connected again since.)
    pub(super) fn is_current(&self, token_id: &str, confirmed: u64, asked: Epoch, lost: Option<Instant>) -> bool {
        let announcements = self.announcements.read().unwrap_or_else(PoisonError::into_inner);
        let since = match lost {
            None => asked.trusted_since,
            Some(lost) => {
                let then = announcements.raises.iter().find(|(at, _)| *at > lost).map(|(_, before)| *before);
                then.unwrap_or_else(|| self.trusted_since.load(Ordering::Relaxed)).min(asked.trusted_since)
            }
        };
        let changed = announcements.changed.get(token_id).copied().unwrap_or(0);
        confirmed >= since.max(announcements.forgotten).max(changed)
    }

    fn raise(&self, announcements: &mut Announcements, to: u64) {
        if announcements.raises.len() >= MAX_RAISES {
            announcements.raises.remove(0);
        }
        announcements.raises.push((Instant::now(), self.trusted_since.swap(to, Ordering::Relaxed)));
    }

    /// To be called under the lock.
    fn advance(&self, steps: u64) -> u64 {
        self.now.fetch_add(steps, Ordering::AcqRel) + steps
    }

    fn lock(&self) -> RwLockWriteGuard<'_, Announcements> {
        self.announcements.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribed() -> Changes {
        let changes = Changes::default();
        changes.subscribed();
        changes
    }

    fn is_current(changes: &Changes, id: &str, confirmed: Epoch) -> bool {
        changes.is_current(id, confirmed.now, changes.epoch(), None)
    }

    #[test]
    fn nothing_is_current_before_the_subscription() {
        let changes = Changes::default();
        let confirmed = changes.epoch();
        assert!(!is_current(&changes, "a", confirmed));
        changes.subscribed();
        assert!(!is_current(&changes, "a", confirmed));
        assert!(is_current(&changes, "a", changes.epoch()));
    }

    #[test]
    fn only_announced_tokens_must_be_confirmed_again() {
        let changes = subscribed();
        let confirmed = changes.epoch();
        changes.changed("a");
        assert!(!is_current(&changes, "a", confirmed) && is_current(&changes, "b", confirmed));
        assert!(is_current(&changes, "a", changes.epoch()));
        // A request that was waiting for its answer hears it too.
        let asked = changes.epoch();
        changes.changed("b");
        assert!(!changes.is_current("b", confirmed.now, asked, None));
    }

    #[test]
    fn an_outage_that_ends_both_connections_makes_nothing_uncertain() {
        let changes = subscribed();
        let confirmed = changes.epoch();
        changes.subscription_lost();
        changes.subscription_lost();
        changes.redis_answered(confirmed);
        assert!(is_current(&changes, "a", confirmed), "the answer is from before the loss");
        changes.subscribed();
        assert!(!is_current(&changes, "a", confirmed), "Redis was there before announcements were announcements again");
    }

    #[test]
    fn a_redis_that_outlives_the_announcements_makes_all_uncertain_until_they_are_heard() {
        let changes = subscribed();
        let before = changes.epoch();
        changes.subscription_lost();
        let during = changes.epoch();
        changes.redis_answered(during);
        changes.redis_answered(during);
        assert!([before, during, changes.epoch()].iter().all(|confirmed| !is_current(&changes, "a", *confirmed)));
        changes.subscribed();
        changes.redis_answered(during);
        assert!([before, during].iter().all(|confirmed| !is_current(&changes, "a", *confirmed)));
        assert!(is_current(&changes, "a", changes.epoch()));
    }

    #[test]
    fn a_worker_goes_by_what_was_known_when_it_lost_its_own_connection() {
        let changes = subscribed();
        let (confirmed, early) = (changes.epoch(), Instant::now());
        changes.subscription_lost();
        // Another worker is connected again.
        changes.redis_answered(changes.epoch());
        let late = Instant::now();
        let current = |asked, lost| changes.is_current("a", confirmed.now, asked, lost);
        let asked = changes.epoch();
        assert!(current(asked, Some(early)) && !current(asked, Some(late)) && !current(asked, None));
        assert!(current(confirmed, Some(late)) && current(confirmed, None), "it was asked before");
        changes.subscribed();
        changes.changed("a");
        assert!(!current(asked, Some(early)), "this was announcements");
    }

    #[test]
    fn raises_of_long_ago_count_as_later_ones() {
        let changes = subscribed();
        let (confirmed, lost) = (changes.epoch(), Instant::now());
        (0..=MAX_RAISES).for_each(|_| changes.subscribed());
        assert!(!changes.is_current("a", confirmed.now, changes.epoch(), Some(lost)));
    }

    #[test]
    fn more_announcements_than_are_remembered_make_all_uncertain() {
        let changes = subscribed();
        let confirmed = changes.epoch();
        (0..MAX_CHANGED).for_each(|number| changes.changed(&number.to_string()));
        assert!(is_current(&changes, "a", confirmed));
        let asked = changes.epoch();
        changes.changed("b");
        assert!(!changes.is_current("a", confirmed.now, asked, None));
        assert!(is_current(&changes, "a", changes.epoch()));
    }
}
