//! How many calls of each token are open, by the process that holds them.

use std::collections::HashMap;

/// Calls by token.
pub(super) type CallsByToken = HashMap<Box<str>, u32>;

/// Counts of open calls. Tokens without any are left out.
#[derive(Default)]
pub(super) struct CallCounts {
    own: CallsByToken,
    /// Those of processes that are being drained, which this one has taken over from.
    others: HashMap<u64, CallsByToken>,
    /// How many of the own calls have ended.
    ended: u64,
}

impl CallCounts {
    /// All calls of a token.
    pub(super) fn of(&self, token_id: &str) -> u32 {
        let count = |calls: &CallsByToken| calls.get(token_id).copied().unwrap_or(0);
        count(&self.own) + self.others.values().map(count).sum::<u32>()
    }

    /// Counts one of the own calls, or one of another process.
    pub(super) fn open(&mut self, holder: Option<u64>, token_id: &str) {
        let calls = match holder {
            None => &mut self.own,
            Some(other) => self.others.entry(other).or_default(),
        };
        *calls.entry(token_id.into()).or_default() += 1;
    }

    /// Counts the end of an own call; returns how many have ended by now.
    pub(super) fn end(&mut self, token_id: &str) -> u64 {
        take_one(&mut self.own, token_id);
        self.ended += 1;
        self.ended
    }

    /// Counts the end of another process's call.
    pub(super) fn end_of(&mut self, holder: u64, token_id: &str) {
        if let Some(calls) = self.others.get_mut(&holder) {
            take_one(calls, token_id);
        }
    }

    /// The own calls, and how many have ended before.
    pub(super) fn own(&self) -> (CallsByToken, u64) {
        (self.own.clone(), self.ended)
    }

    /// The calls of the other processes.
    pub(super) fn others(&self) -> impl Iterator<Item = (u64, &CallsByToken)> {
        self.others.iter().map(|(holder, calls)| (*holder, calls))
    }

    /// Sets what another process holds.
    pub(super) fn set(&mut self, holder: u64, calls: CallsByToken) {
        self.others.insert(holder, calls);
    }

    /// Another process holds nothing any longer.
    pub(super) fn forget(&mut self, holder: u64) {
        self.others.remove(&holder);
    }
}

fn take_one(calls: &mut CallsByToken, token_id: &str) {
    let Some(open) = calls.get_mut(token_id) else { return };
    *open -= 1;
    if *open == 0 {
        calls.remove(token_id);
    }
}
