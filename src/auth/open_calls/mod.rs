//! Calls and streams that are open, by token, so that they can be ended when their token no longer entitles to them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use super::principal::Principal;
use super::rechecks::Rechecks;
use super::refusal::{Reason, Refusal, Refused};
use crate::config::{Route, RouteAccess};
use crate::sharded::Sharded;

/// Calls of different tokens seldom wait for each other.
const SHARDS: usize = 16;
/// How often calls whose time is over are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(200);

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
    pub(crate) fn as_str(self) -> &'static str {
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
#[derive(Default)]
pub struct OpenCalls {
    shards: Sharded<CallTable, SHARDS>,
    /// The routes of the configuration in force, by name, once it is not the first.
    routes: ArcSwap<HashMap<Arc<str>, Arc<Route>>>,
    pub(super) rechecks: Rechecks,
}

/// A call by its token and a number.
type Key = (Arc<str>, u64);

#[derive(Default)]
struct CallTable {
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

impl OpenCalls {
    /// The present moment, counted in announcements: to be noted before a principal is looked up.
    pub(crate) fn era(&self) -> u64 {
        self.rechecks.era()
    }

    /// Takes note of a call that `principal`, who was looked up in `era`, has open on a route.
    #[must_use]
    pub fn open(self: &Arc<Self>, principal: &Arc<Principal>, route: &Arc<Route>, era: u64) -> OpenCall {
        let (tell, told) = oneshot::channel();
        let mut table = self.table(&principal.id);
        table.count += 1;
        let key = (principal.id.clone(), table.count);
        // The configuration may have changed since the request began. Read under the lock, as it is judged under the lock.
        let route = self.routes.load().get(&route.name).unwrap_or(route).clone();
        let is_allowed = may(principal, &route);
        let entry = Entry { principal: principal.clone(), route, tell };
        if let Some(end) = principal.expires_at {
            table.ends.insert((end, key.clone()));
        }
        table.calls.insert(key.clone(), entry);
        if !is_allowed {
            table.revoke(&key, Revocation::Permission);
        }
        drop(table);
        if self.rechecks.is_announced_since(&principal.id, era) {
            self.rechecks.add(&principal.id);
        }
        OpenCall { calls: self.clone(), key, told: Some(told) }
    }

    /// Notes that the record of a token is said to have changed, and has its calls looked at again.
    pub(super) fn announce(&self, token_id: &str) {
        self.rechecks.announce(token_id);
        if self.table(token_id).of(token_id).next().is_some() {
            self.rechecks.add(token_id);
        }
    }

    /// The tokens with open calls, with the versions of the records that these rest on.
    pub(super) fn tokens(&self) -> BTreeMap<Arc<str>, Vec<u64>> {
        let mut tokens = BTreeMap::<_, Vec<u64>>::new();
        for table in self.shards.iter() {
            for ((id, _), entry) in &table.calls {
                let versions = tokens.entry(id.clone()).or_default();
                if !versions.contains(&entry.principal.version) {
                    versions.push(entry.principal.version);
                }
            }
        }
        tokens
    }

    /// Ends the calls whose time is over.
    fn expire(&self, now: SystemTime) {
        for mut table in self.shards.iter() {
            while let Some((_, key)) = table.ends.first().filter(|(end, _)| *end <= now).cloned() {
                table.revoke(&key, Revocation::Expired);
            }
        }
    }

    /// Ends calls when their time is over, for ever.
    pub(super) async fn expire_on_time(&self) {
        loop {
            self.expire(SystemTime::now());
            tokio::time::sleep(EXPIRY_INTERVAL).await;
        }
    }

    /// Judges the calls of one token anew. `current` tells who the principal of a call is by now.
    pub(super) fn judge(
        &self,
        id: &str,
        now: SystemTime,
        current: impl Fn(&Principal) -> Result<Arc<Principal>, Refused>,
    ) {
        self.table(id).judge(id, now, &current);
    }

    /// Judges all calls anew.
    pub(super) fn judge_all(&self, now: SystemTime, current: impl Fn(&Principal) -> Result<Arc<Principal>, Refused>) {
        for mut table in self.shards.iter() {
            let tokens: BTreeSet<Arc<str>> = table.calls.keys().map(|(id, _)| id.clone()).collect();
            for id in tokens {
                table.judge(&id, now, &current);
            }
        }
    }

    /// Judges all calls by the routes of another configuration, each by the one of the same name. A call whose route is gone goes on.
    pub(crate) fn follow_routes(&self, routes: &[Arc<Route>]) {
        let by_name: HashMap<_, _> = routes.iter().map(|route| (route.name.clone(), route.clone())).collect();
        let by_name = Arc::new(by_name);
        self.routes.store(by_name.clone());
        for mut table in self.shards.iter() {
            let mut lost = Vec::new();
            for (key, entry) in &mut table.calls {
                let Some(route) = by_name.get(&entry.route.name) else { continue };
                entry.route = route.clone();
                if !may(&entry.principal, route) {
                    lost.push(key.clone());
                }
            }
            for key in lost {
                table.revoke(&key, Revocation::Permission);
            }
        }
    }

    fn table(&self, token_id: &str) -> MutexGuard<'_, CallTable> {
        self.shards.lock(token_id)
    }
}

impl CallTable {
    fn of(&self, id: &str) -> impl Iterator<Item = &Key> {
        let all = (Arc::from(id), 0)..=(Arc::from(id), u64::MAX);
        self.calls.range(all).map(|(key, _)| key)
    }

    fn judge(&mut self, id: &str, now: SystemTime, current: &impl Fn(&Principal) -> Result<Arc<Principal>, Refused>) {
        let keys: Vec<Key> = self.of(id).cloned().collect();
        for key in keys {
            let Some(entry) = self.calls.get_mut(&key) else { continue };
            let principal = match current(&entry.principal) {
                Ok(principal) => principal,
                Err(refused) => {
                    // Otherwise nothing is known: an outage ends no call.
                    if let Refusal::Invalid(reason) = refused.refusal {
                        self.revoke(&key, reason.into());
                    }
                    continue;
                }
            };
            if principal.is_expired(now) {
                self.revoke(&key, Revocation::Expired);
            } else if !may(&principal, &entry.route) {
                self.revoke(&key, Revocation::Permission);
            } else {
                let before = std::mem::replace(&mut entry.principal, principal.clone());
                if let Some(end) = before.expires_at {
                    self.ends.remove(&(end, key.clone()));
                }
                if let Some(end) = principal.expires_at {
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
        if let Some(end) = entry.principal.expires_at {
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
        drop(self.calls.table(&self.key.0).remove(&self.key));
    }
}

#[cfg(test)]
mod tests;
