//! What requests need to know of a token's record, in little memory: a token file may have a hundred thousand.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;
use std::time::SystemTime;

use super::refusal::{Reason, Refused};
use crate::tokens::{PlanChoice, Record, State, StoredHash};

/// One hash of a record, with all that the record says of requests with its token.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ServedToken {
    pub(super) id: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) account: Arc<str>,
    pub(super) permissions: Arc<[Box<str>]>,
    /// What it says of its plan; `None`: nothing.
    pub(super) choice: Option<Arc<PlanChoice>>,
    /// The end of the record or of the hash, whichever is earlier.
    pub(super) expires_at: Option<SystemTime>,
    /// Why the token is no good whatever the time is.
    refused: Option<Reason>,
}

impl ServedToken {
    pub(super) fn of(record: &Record, hash: &StoredHash) -> Self {
        let choice = Some(PlanChoice::of(record)).filter(|choice| *choice != PlanChoice::default());
        let ends = [record.expires_at, hash.expires_at];
        Self {
            id: record.id.as_str().into(),
            name: record.name.as_str().into(),
            account: record.account.as_str().into(),
            permissions: record.permissions.iter().map(|permission| permission.as_str().into()).collect(),
            choice: choice.map(Arc::new),
            expires_at: ends.into_iter().flatten().min().map(|date| date.time()),
            // Its end is judged at every use.
            refused: match record.state(SystemTime::UNIX_EPOCH) {
                State::Revoked => Some(Reason::Revoked),
                State::Disabled => Some(Reason::Disabled),
                State::Active | State::Expired => None,
            },
        }
    }

    /// Refuses records that are revoked or switched off.
    pub(super) fn usable(&self) -> Result<(), Refused> {
        let token = || Some((self.id.clone(), self.name.clone()));
        self.refused.map_or(Ok(()), |reason| Err(Refused { refusal: reason.into(), token: token() }))
    }
}

/// Values that tokens have in common, each of which is kept once.
#[derive(Default)]
pub(super) struct CommonValues {
    accounts: HashSet<Arc<str>, foldhash::fast::RandomState>,
    permissions: HashSet<Arc<[Box<str>]>, foldhash::fast::RandomState>,
    choices: HashSet<Arc<PlanChoice>, foldhash::fast::RandomState>,
}

impl CommonValues {
    /// Puts values that are known in the place of equal ones of `token`.
    pub(super) fn share(&mut self, token: &mut ServedToken) {
        share(&mut self.accounts, &mut token.account);
        share(&mut self.permissions, &mut token.permissions);
        if let Some(choice) = &mut token.choice {
            share(&mut self.choices, choice);
        }
    }
}

fn share<T: Eq + Hash + ?Sized>(known: &mut HashSet<Arc<T>, foldhash::fast::RandomState>, value: &mut Arc<T>) {
    match known.get(value) {
        Some(known) => *value = known.clone(),
        None => drop(known.insert(value.clone())),
    }
}
