//! What becomes of a request that Redis answers when it has been decided already.

use std::time::Instant;

use redis::Value;

use super::super::answer::counted_ms;
use super::super::query::{LimitQuery, pack_windows};
use super::RedisLimiter;
use crate::store::LateAnswer;

impl RedisLimiter {
    /// Waits for the answer in the background. What this process admitted and Redis counted is not merged; what Redis counted
    /// and this process refused is taken back. Only what a broken connection hides may count twice, or though it was refused.
    pub(super) fn follow(&self, query: &LimitQuery<'_>, answer: LateAnswer, is_counted: bool, passes: bool) {
        if passes && !is_counted {
            return;
        }
        let logs = self.logs(query);
        let Some(first) = logs.first().map(|(log, _)| log.clone()) else { return };
        let (cost, is_pair, merger) = (query.charge.cost, query.charge.limits.is_some(), self.merger.clone());
        let (now, pending) = (Instant::now(), &merger.pending);
        let doubts: Vec<_> =
            logs.iter().filter(|_| is_counted).map(|(log, limits)| pending.doubt(log, limits, cost, now)).collect();
        let counted_in: Vec<_> = logs.iter().map(|(log, limits)| (log.clone(), pack_windows(limits))).collect();
        tokio::spawn(async move {
            let Some(Value::BulkString(answer)) = merger.late_answer(answer, &first).await else { return };
            let Some(stamps) = counted_ms(&answer, is_pair) else { return };
            doubts.into_iter().for_each(|doubt| doubt.counted());
            if passes {
                return;
            }
            for ((log, windows), stamp_ms) in counted_in.iter().zip(stamps) {
                // One that fails because Redis is gone again leaves the request counted.
                let _ = merger.take_back(log, windows, cost, stamp_ms).await;
            }
        });
    }
}
