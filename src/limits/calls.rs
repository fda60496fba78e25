//! Leases of open calls: how many calls a token has open, over all instances.
//!
//! A lease is taken together with the decision on the request that opens the call. In this process it is a count; in Redis it
//! is a name that ends after 30 s unless its instance renews it, so that an instance that dies frees what it held.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::memory::MemoryLimiter;

/// The name of a lease, random over all instances.
pub(super) type LeaseName = [u8; 8];

/// Leases are renewed, and given back, for so many tokens at one time.
const TOKENS_AT_ONCE: usize = 64;

/// A call's place among those that its token may have open. Dropped, it is free again.
pub struct CallLease {
    local: Arc<MemoryLimiter>,
    token_id: Box<str>,
    /// Whether this process counts it.
    counted: bool,
    /// Where it is shared with other instances.
    shared: Option<(Arc<CallLeases>, LeaseName)>,
}

impl CallLease {
    /// A lease that `local` has counted.
    pub(super) fn counted(local: Arc<MemoryLimiter>, token_id: &str) -> Self {
        Self { local, token_id: token_id.into(), counted: true, shared: None }
    }

    /// A lease that is being asked for, with its new name. Nobody knows whether Redis has granted it until it is
    /// [`CallLease::granted`] or [`CallLease::refused`]; if it is dropped before, it is given back to be on the safe side.
    pub(super) fn asked_for(local: Arc<MemoryLimiter>, ledger: Arc<CallLeases>, token_id: &str) -> (Self, LeaseName) {
        let mut name = LeaseName::default();
        fastrand::fill(&mut name);
        (Self { local, token_id: token_id.into(), counted: false, shared: Some((ledger, name)) }, name)
    }

    /// Redis has granted it, or this process in its stead: from now on it is renewed. `counted`: the process has counted it
    /// already.
    pub(super) fn granted(mut self, counted: bool) -> Self {
        if !counted {
            self.local.open_call(&self.token_id);
        }
        self.counted = true;
        if let Some((ledger, name)) = &self.shared {
            ledger.book().held.entry(self.token_id.clone()).or_default().push(*name);
        }
        self
    }

    /// Redis has not granted it.
    pub(super) fn refused(mut self) {
        self.shared = None;
    }
}

impl Drop for CallLease {
    fn drop(&mut self) {
        if self.counted {
            self.local.end_call(&self.token_id);
        }
        if let Some((ledger, name)) = &self.shared {
            ledger.end(&self.token_id, *name);
        }
    }
}

/// The leases that one worker holds in Redis.
#[derive(Default)]
pub(super) struct CallLeases {
    book: Mutex<Book>,
    /// Something is to be given back.
    ended: Notify,
}

#[derive(Default)]
struct Book {
    held: Leases,
    ended: Leases,
}

/// Names of leases by token.
type Leases = HashMap<Box<str>, Vec<LeaseName>>;

impl CallLeases {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, token_id: &str, name: LeaseName) {
        let mut book = self.book();
        if let Some(names) = book.held.get_mut(token_id) {
            names.retain(|held| *held != name);
            if names.is_empty() {
                book.held.remove(token_id);
            }
        }
        book.ended.entry(token_id.into()).or_default().push(name);
        drop(book);
        self.ended.notify_one();
    }

    /// Resolves when something is to be given back.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Calls `renew` for each token with the leases that are held.
    pub(super) async fn renew<F: Future<Output = ()>>(&self, renew: impl Fn(Box<str>, Vec<LeaseName>) -> F) {
        let held = self.book().held.clone();
        in_waves(held, renew).await;
    }

    /// Calls `end` for each token with the leases that have ended since the last time. What fails is not tried again: Redis
    /// lets go of it by itself.
    pub(super) async fn give_back<F: Future<Output = ()>>(&self, end: impl Fn(Box<str>, Vec<LeaseName>) -> F) {
        let ended = std::mem::take(&mut self.book().ended);
        in_waves(ended, end).await;
    }

    /// Takes all that are held for ended.
    pub(super) fn end_all(&self) {
        let mut book = self.book();
        for (token_id, names) in std::mem::take(&mut book.held) {
            book.ended.entry(token_id).or_default().extend(names);
        }
    }
}

async fn in_waves<F: Future<Output = ()>>(leases: Leases, work: impl Fn(Box<str>, Vec<LeaseName>) -> F) {
    let mut leases = leases.into_iter().peekable();
    while leases.peek().is_some() {
        let wave = leases.by_ref().take(TOKENS_AT_ONCE).map(|(token_id, names)| work(token_id, names));
        futures_util::future::join_all(wave).await;
    }
}
