//! Leases of open calls: how many calls a token has open, over all instances.
//!
//! A lease is taken together with the decision on the request that opens the call. In this process it is a count; in Redis it
//! is a name that expires after 30 s unless its instance renews it, so that an instance that dies frees what it held.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::memory::MemoryLimiter;

/// The name of a lease, random over all instances.
pub(super) type LeaseName = [u8; 8];

/// One of the calls that a token may have open. Dropped, another one may be opened.
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

    /// A lease with a new name, to be requested from Redis. Until it is [`CallLease::answered`], it is unknown
    /// whether Redis counts it; dropped before, it is given back to be on the safe side.
    pub(super) fn requested(local: Arc<MemoryLimiter>, leases: Arc<CallLeases>, token_id: &str) -> Self {
        let mut name = LeaseName::default();
        fastrand::fill(&mut name);
        Self { local, token_id: token_id.into(), counted: false, shared: Some((leases, name)) }
    }

    /// Its name in Redis.
    pub(super) fn name(&self) -> Option<LeaseName> {
        self.shared.as_ref().map(|(_, name)| *name)
    }

    /// Redis has granted it, or this process in its stead: from now on it is renewed. `counted`: the process has counted it
    /// already.
    pub(super) fn granted(mut self, counted: bool) -> Self {
        if !counted {
            self.local.open_call(&self.token_id);
        }
        self.counted = true;
        if let Some((leases, name)) = &self.shared {
            leases.lock().held.entry(self.token_id.clone()).or_default().push(*name);
        }
        self
    }

    /// Redis has answered.
    pub(super) fn answered(mut self, granted: bool) -> Option<Self> {
        if granted {
            return Some(self.granted(false));
        }
        // There is nothing to give back.
        self.shared = None;
        None
    }
}

impl Drop for CallLease {
    fn drop(&mut self) {
        if self.counted {
            self.local.end_call(&self.token_id);
        }
        if let Some((leases, name)) = &self.shared {
            leases.end(&self.token_id, *name);
        }
    }
}

/// The leases that one worker holds in Redis.
#[derive(Default)]
pub(super) struct CallLeases {
    names: Mutex<LeaseNames>,
    /// Notified when a lease is to be given back.
    pub(super) ended: Notify,
}

#[derive(Default)]
struct LeaseNames {
    held: ByToken,
    /// To be given back.
    ended: ByToken,
}

pub(super) type ByToken = HashMap<Box<str>, Vec<LeaseName>>;

impl CallLeases {
    fn lock(&self) -> MutexGuard<'_, LeaseNames> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, token_id: &str, name: LeaseName) {
        let mut names = self.lock();
        if let Some(held) = names.held.get_mut(token_id) {
            held.retain(|held| *held != name);
            if held.is_empty() {
                names.held.remove(token_id);
            }
        }
        names.ended.entry(token_id.into()).or_default().push(name);
        drop(names);
        self.ended.notify_one();
    }

    /// The leases that are held.
    pub(super) fn held(&self) -> ByToken {
        self.lock().held.clone()
    }

    /// The leases that have ended since the last time.
    pub(super) fn take_ended(&self) -> ByToken {
        std::mem::take(&mut self.lock().ended)
    }

    /// Ends all that are held.
    pub(super) fn end_all(&self) {
        let mut names = self.lock();
        for (token_id, held) in std::mem::take(&mut names.held) {
            names.ended.entry(token_id).or_default().extend(held);
        }
    }
}
