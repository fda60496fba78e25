//! Calls and streams that are open, by token, so that they can be ended when their token no longer entitles to them.

mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::SystemTime;

use tokio::sync::{Notify, oneshot};

use super::principal::Principal;
use super::refusal::{Reason, Refusal};
use crate::config::{Route, RouteAccess};
use crate::sharded::Sharded;

pub use watch::RecordWatch;
pub(super) use watch::clock;

/// Calls of different tokens seldom wait for each other.
const SHARDS: usize = 16;
/// Of so many groups of tokens is known when one of them was last announced to have changed.
const GROUPS: usize = 1_024;

/// Why the calls of a token have to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// It was revoked.
    Revoked,
    /// It was switched off.
    Disabled,
    /// Its time is over, or that of the secret that opened the call.
    Expired,
    /// Its record is gone, or the secret that opened the call is no longer in it.
    Gone,
    /// It no longer holds what the route asks for.
    Permission,
}

impl Revocation {
    /// For the log; clients are not told.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "the token was revoked",
            Self::Disabled => "the token was disabled",
            Self::Expired => "the token has expired",
            Self::Gone => "the token was replaced or deleted",
            Self::Permission => "the token lost the permission",
        }
    }
}

/// The open calls of one process.
pub struct OpenCalls {
    shards: Sharded<Book, SHARDS>,
    /// How many announcements there have been.
    era: AtomicU64,
    /// The last one for each group of tokens.
    announced: Box<[AtomicU64]>,
    /// Tokens with open calls that are said to have changed.
    doubtful: Mutex<BTreeSet<Arc<str>>>,
    doubt: Notify,
}

/// A call by its token and a number.
type Key = (Arc<str>, u64);

#[derive(Default)]
struct Book {
    calls: BTreeMap<Key, Entry>,
    /// When calls end by themselves.
    ends: BTreeSet<(SystemTime, Key)>,
    count: u64,
}

struct Entry {
    principal: Arc<Principal>,
    route: Arc<Route>,
    tell: oneshot::Sender<Revocation>,
}

/// One call that is open. Dropped, it has ended.
pub struct OpenCall {
    calls: Arc<OpenCalls>,
    key: Key,
    told: Option<oneshot::Receiver<Revocation>>,
}

impl Default for OpenCalls {
    fn default() -> Self {
        Self {
            shards: Sharded::default(),
            era: AtomicU64::new(0),
            announced: (0..GROUPS).map(|_| AtomicU64::new(0)).collect(),
            doubtful: Mutex::default(),
            doubt: Notify::new(),
        }
    }
}

impl OpenCalls {
    /// The present moment, counted in announcements: to be noted before a principal is looked up.
    #[must_use]
    pub fn era(&self) -> u64 {
        self.era.load(Ordering::Acquire)
    }

    /// Takes note of a call that `principal`, who was looked up in `era`, has open on a route.
    #[must_use]
    pub fn open(self: &Arc<Self>, principal: &Arc<Principal>, route: &Arc<Route>, era: u64) -> OpenCall {
        let (tell, told) = oneshot::channel();
        let mut book = self.book(&principal.id);
        book.count += 1;
        let key = (principal.id.clone(), book.count);
        let entry = Entry { principal: principal.clone(), route: route.clone(), tell };
        if let Some(end) = principal.expires_at() {
            book.ends.insert((end, key.clone()));
        }
        book.calls.insert(key.clone(), entry);
        drop(book);
        if self.announced[group(&principal.id)].load(Ordering::Acquire) > era {
            self.doubt(&principal.id);
        }
        OpenCall { calls: self.clone(), key, told: Some(told) }
    }

    /// Notes that the record of a token is said to have changed. Returns whether it has calls open.
    fn announce(&self, token_id: &str) -> bool {
        let era = self.era.fetch_add(1, Ordering::AcqRel) + 1;
        self.announced[group(token_id)].store(era, Ordering::Release);
        self.book(token_id).of(token_id).next().is_some()
    }

    fn doubt(&self, token_id: &str) {
        self.doubtful.lock().unwrap_or_else(PoisonError::into_inner).insert(token_id.into());
        self.doubt.notify_one();
    }

    /// The tokens with open calls that are said to have changed, as soon as there are any.
    async fn doubted(&self) -> Vec<Arc<str>> {
        self.doubt.notified().await;
        std::mem::take(&mut *self.doubtful.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect()
    }

    /// The tokens with open calls, with the versions of the records that these rest on.
    fn tokens(&self) -> BTreeMap<Arc<str>, Vec<u64>> {
        let mut tokens = BTreeMap::<_, Vec<u64>>::new();
        for book in self.shards.iter() {
            for ((id, _), entry) in &book.calls {
                let versions = tokens.entry(id.clone()).or_default();
                if !versions.contains(&entry.principal.version) {
                    versions.push(entry.principal.version);
                }
            }
        }
        tokens
    }

    /// Ends the calls whose time is over.
    pub(super) fn expire(&self, now: SystemTime) {
        for mut book in self.shards.iter() {
            while let Some((_, key)) = book.ends.first().filter(|(end, _)| *end <= now).cloned() {
                book.revoke(&key, Revocation::Expired);
            }
        }
    }

    /// Judges the calls of one token anew. `current` tells who the principal of a call is by now.
    fn judge(&self, id: &str, now: SystemTime, current: impl Fn(&Principal) -> Result<Arc<Principal>, Refusal>) {
        self.book(id).judge(id, now, &current);
    }

    /// Judges all calls anew.
    pub(super) fn judge_all(&self, now: SystemTime, current: impl Fn(&Principal) -> Result<Arc<Principal>, Refusal>) {
        for mut book in self.shards.iter() {
            let tokens: BTreeSet<Arc<str>> = book.calls.keys().map(|(id, _)| id.clone()).collect();
            for id in tokens {
                book.judge(&id, now, &current);
            }
        }
    }

    fn book(&self, token_id: &str) -> MutexGuard<'_, Book> {
        self.shards.lock(token_id)
    }
}

fn group(token_id: &str) -> usize {
    crc32fast::hash(token_id.as_bytes()) as usize % GROUPS
}

impl Book {
    fn of(&self, id: &str) -> impl Iterator<Item = &Key> {
        let all = (Arc::from(id), 0)..=(Arc::from(id), u64::MAX);
        self.calls.range(all).map(|(key, _)| key)
    }

    fn judge(&mut self, id: &str, now: SystemTime, current: &impl Fn(&Principal) -> Result<Arc<Principal>, Refusal>) {
        let keys: Vec<Key> = self.of(id).cloned().collect();
        for key in keys {
            let Some(entry) = self.calls.get_mut(&key) else { continue };
            let principal = match current(&entry.principal) {
                Ok(principal) => principal,
                Err(Refusal::Invalid(reason)) => {
                    self.revoke(&key, reason.into());
                    continue;
                }
                // Nothing is known; an outage ends no call.
                Err(
                    Refusal::Missing
                    | Refusal::Repeated
                    | Refusal::TooManyFailures { .. }
                    | Refusal::LookupsExhausted
                    | Refusal::Unavailable,
                ) => continue,
            };
            if principal.is_expired(now) {
                self.revoke(&key, Revocation::Expired);
            } else if !may(&principal, &entry.route) {
                self.revoke(&key, Revocation::Permission);
            } else {
                let before = std::mem::replace(&mut entry.principal, principal.clone());
                if let Some(end) = before.expires_at() {
                    self.ends.remove(&(end, key.clone()));
                }
                if let Some(end) = principal.expires_at() {
                    self.ends.insert((end, key));
                }
            }
        }
    }

    fn revoke(&mut self, key: &Key, why: Revocation) {
        if let Some(entry) = self.remove(key) {
            // It may be ending by itself at this moment.
            let _ = entry.tell.send(why);
        }
    }

    fn remove(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.calls.remove(key)?;
        if let Some(end) = entry.principal.expires_at() {
            self.ends.remove(&(end, key.clone()));
        }
        Some(entry)
    }
}

fn may(principal: &Principal, route: &Route) -> bool {
    match &route.access {
        RouteAccess::Token(permissions) => permissions.iter().all(|permission| principal.may(permission)),
        RouteAccess::Public => true,
    }
}

impl From<Reason> for Revocation {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Revoked => Self::Revoked,
            Reason::Disabled => Self::Disabled,
            Reason::Expired => Self::Expired,
            Reason::Unknown | Reason::Malformed => Self::Gone,
        }
    }
}

impl OpenCall {
    /// Resolves when the call has to end.
    pub async fn revoked(&mut self) -> Revocation {
        std::future::poll_fn(|cx| self.poll_revoked(cx)).await
    }

    /// The same as a poll.
    pub fn poll_revoked(&mut self, cx: &mut Context<'_>) -> Poll<Revocation> {
        let Some(told) = &mut self.told else { return Poll::Pending };
        match Pin::new(told).poll(cx) {
            Poll::Ready(Ok(why)) => {
                self.told = None;
                Poll::Ready(why)
            }
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        drop(self.calls.book(&self.key.0).remove(&self.key));
    }
}

#[cfg(test)]
mod tests;
