//! Admissions that Redis may have counted: it was asked, and did not answer in time.

use std::sync::Arc;
use std::time::Instant;

use super::PendingMerges;
use crate::config::Limit;

/// Admissions of one log that this process made after it had asked Redis for them. They are merged when this is dropped,
/// unless Redis turns out to have counted them. Until then Redis decides on no request from here that needs the log.
pub(in crate::limits) struct Doubt {
    pending: Arc<PendingMerges>,
    log: Box<[u8]>,
    cost: usize,
    at_ms: u64,
    counted: bool,
}

impl PendingMerges {
    /// Adds `cost` admissions for a log with these limits that Redis may have counted.
    pub(in crate::limits) fn doubt(self: &Arc<Self>, log: &[u8], limits: &[Limit], cost: u32, at: Instant) -> Doubt {
        let (at_ms, units) = (self.ms(at), cost as usize);
        self.put(log, limits, cost, at_ms, |log| log.in_doubt += units);
        Doubt { pending: self.clone(), log: log.into(), cost: units, at_ms, counted: false }
    }
}

impl Doubt {
    /// Redis has counted them.
    pub(in crate::limits) fn counted(mut self) {
        self.counted = true;
    }
}

impl Drop for Doubt {
    fn drop(&mut self) {
        let mut state = self.pending.lock();
        let Some(log) = state.logs.get_mut(&self.log[..]) else { return };
        log.in_doubt -= self.cost;
        log.settled.send_replace(false);
        if !self.counted {
            log.times.extend(std::iter::repeat_n(self.at_ms, self.cost));
            return;
        }
        if log.is_empty() {
            state.logs.remove(&self.log[..]);
        }
        self.pending.set_len(self.pending.len() - self.cost);
    }
}
