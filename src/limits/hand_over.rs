//! The memory limiter at the end of its process: what it knows goes to a successor, which decides from then on.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, mpsc};

use tokio::sync::oneshot;

use super::call_counts::CallsByToken;
use super::calls::CallLease;
use super::decision::Decision;
use super::log_bytes::{DamagedLogs, read_text, write_text};
use super::memory::MemoryLimiter;
use super::query::{LimitQuery, LimitSubject};
use super::successor::{GrantedCall, LimitAnswer, LimitQuestion, SuccessorDecision, SuccessorRequest};
use super::token_logs::TokenLogs;

/// The calls that processes hold, by their names.
pub type CallsByHolder = HashMap<u64, HashMap<Box<str>, u32>>;

impl MemoryLimiter {
    /// From here on this process decides nothing: what it is asked goes to the receiver, which is the successor's.
    pub fn freeze(&self) -> mpsc::Receiver<SuccessorRequest> {
        let (sender, receiver) = mpsc::channel();
        *self.successor.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        // Whoever sees this while it holds a lock decides nothing behind it, and what was decided before is in the logs
        // when the lock is taken to copy them.
        self.frozen.store(true, Ordering::SeqCst);
        receiver
    }

    /// There is no successor (any longer): this process decides by what it knows. To be called before the receiver is dropped.
    pub fn thaw(&self) {
        self.frozen.store(false, Ordering::SeqCst);
        *self.successor.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether a successor decides.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::SeqCst)
    }

    /// All logs, in parts that [`MemoryLimiter::import`] takes.
    ///
    /// # Errors
    /// Those of `send`.
    pub fn export(&self, mut send: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let parts = self.logs.shards(|entries| {
            let mut part = Vec::new();
            for (id, logs) in entries {
                write_text(&mut part, id);
                logs.write_bytes(&mut part);
            }
            part
        });
        for part in parts.filter(|part| !part.is_empty()) {
            send(&part)?;
        }
        Ok(())
    }

    /// Takes over a part of the logs of another process.
    ///
    /// # Errors
    /// [`DamagedLogs`]; those before the damage were taken over.
    pub fn import(&self, mut part: &[u8], now_ms: u64) -> Result<(), DamagedLogs> {
        while !part.is_empty() {
            let id = read_text(&mut part)?;
            let logs = TokenLogs::read_bytes(&mut part)?;
            self.with_logs(&id, now_ms, |known| *known = logs);
        }
        Ok(())
    }

    /// All calls; its own are those of the process called `own`.
    #[must_use]
    pub fn export_calls(&self, own: u64) -> CallsByHolder {
        let calls = self.calls();
        let mut all: CallsByHolder = calls.others().map(|(holder, calls)| (holder, calls.clone())).collect();
        all.insert(own, calls.own().0);
        all
    }

    /// The calls of this process, and how many have ended before.
    #[must_use]
    pub fn own_calls(&self) -> (HashMap<Box<str>, u32>, u64) {
        self.calls().own()
    }

    /// Counts the calls that another process holds, in place of what was known of it.
    pub fn set_calls_of(&self, holder: u64, calls: HashMap<Box<str>, u32>) {
        let calls: CallsByToken = calls.into_iter().filter(|(_, count)| *count > 0).collect();
        self.calls().set(holder, calls);
    }

    /// Another process holds no calls any longer.
    pub fn forget_calls_of(&self, holder: u64) {
        self.calls().forget(holder);
    }

    /// A call of another process has ended.
    pub fn end_call_of(&self, holder: u64, token_id: &str) {
        self.calls().end_of(holder, token_id);
    }

    /// Decides for another process; `None` once a successor decides, or when the question makes no sense.
    #[must_use]
    pub fn decide_for(&self, holder: u64, question: &LimitQuestion, now_ms: u64) -> Option<LimitAnswer> {
        let (plan, route) = question.limits()?;
        let subject = LimitSubject { token_id: &question.token, version: 0 };
        let charge = question.charge(route.as_ref());
        let query = LimitQuery { subject, plan: &plan, charge, is_current: &|| true };
        self.decide_query(Some(holder), &query, now_ms).map(|decision| LimitAnswer::new(&decision))
    }

    /// What the successor has decided. A granted call is counted here before anything else happens.
    #[must_use]
    pub fn accept(self: &Arc<Self>, question: &LimitQuestion, answer: &LimitAnswer) -> SuccessorDecision {
        let call = (answer.admitted && question.max_calls.is_some()).then(|| {
            self.open_call(&question.token);
            let (limiter, token) = (self.clone(), question.token.clone());
            GrantedCall::new(move || limiter.end_call(&token))
        });
        SuccessorDecision { decision: answer.decision(), call }
    }

    /// Asks the successor; `None`: there is none (any longer).
    pub(super) async fn ask_successor(
        self: &Arc<Self>,
        query: &LimitQuery<'_>,
    ) -> Option<(Decision, Option<CallLease>)> {
        let (answer, answered) = oneshot::channel();
        if !self.tell_successor(SuccessorRequest::Decide(LimitQuestion::new(query), answer)) {
            // It is being thawed.
            tokio::task::yield_now().await;
            return None;
        }
        let SuccessorDecision { decision, call } = answered.await.ok()?;
        let lease = call.map(|call| {
            call.keep();
            CallLease::counted(self.clone(), query.subject.token_id)
        });
        Some((decision, lease))
    }

    pub(super) fn tell_successor(&self, request: SuccessorRequest) -> bool {
        let successor = self.successor.lock().unwrap_or_else(PoisonError::into_inner);
        successor.as_ref().is_some_and(|successor| successor.send(request).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Limit, Plan, RouteLimits};
    use crate::limits::Charge;

    const NOW_MS: u64 = 1_700_000_000_000;

    fn limit(count: u32, window_ms: u32) -> Limit {
        Limit { name: "w".into(), count, window_ms: window_ms.try_into().unwrap() }
    }

    fn plan() -> Plan {
        Plan { name: "p".into(), limits: [limit(3, 1_000), limit(9, 60_000)].into(), ..Plan::default() }
    }

    fn decide(limiter: &MemoryLimiter, token: &str, charge: Charge<'_>, now_ms: u64) -> Option<Decision> {
        let (plan, subject) = (plan(), LimitSubject { token_id: token, version: 1 });
        limiter.decide_query(None, &LimitQuery { subject, plan: &plan, charge, is_current: &|| true }, now_ms)
    }

    #[test]
    fn a_successor_answers_as_its_predecessor_would_have() {
        let (before, after) = (MemoryLimiter::new(10_000), MemoryLimiter::new(10_000));
        let route = RouteLimits { route: "r".into(), limits: [limit(2, 5_000)].into() };
        let charge = |at: u64| {
            let limits = at.is_multiple_of(3).then_some(&route);
            Charge { cost: 1 + (at % 2) as u32, limits, opens_call: false }
        };
        for at in 0..2_000 {
            decide(&before, &format!("t{}", at % 37), charge(at), NOW_MS + 11 * at).unwrap();
        }
        before.export(|part| after.import(part, NOW_MS).map_err(io::Error::other)).unwrap();
        assert_eq!(after.tokens(), 37);
        for at in 2_000..4_000 {
            let answer =
                |limiter: &MemoryLimiter| decide(limiter, &format!("t{}", at % 37), charge(at), NOW_MS + 11 * at);
            assert_eq!(answer(&before), answer(&after));
        }
    }

    #[test]
    fn damaged_logs_are_refused() {
        let (before, after) = (MemoryLimiter::new(64), MemoryLimiter::new(64));
        decide(&before, "a", 1.into(), NOW_MS).unwrap();
        let mut bytes = Vec::new();
        before
            .export(|part| {
                bytes.extend_from_slice(part);
                Ok(())
            })
            .unwrap();
        for end in 1..bytes.len() {
            assert_eq!(after.import(&bytes[..end], NOW_MS), Err(DamagedLogs), "{end}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            // Whatever comes of it, it must not panic, now or later.
            let _ = after.import(&damaged, NOW_MS);
            let _ = decide(&after, "a", 1.into(), NOW_MS + 1);
        }
    }

    #[test]
    fn a_frozen_limiter_decides_nothing_and_passes_ends_on() {
        let limiter = Arc::new(MemoryLimiter::new(64));
        limiter.open_call("a");
        let lease = CallLease::counted(limiter.clone(), "a");
        let requests = limiter.freeze();
        assert!(decide(&limiter, "a", 1.into(), NOW_MS).is_none());
        drop(lease);
        assert!(matches!(requests.try_recv(), Ok(SuccessorRequest::EndCall { ended: 1, .. })));
        limiter.thaw();
        assert!(decide(&limiter, "a", 1.into(), NOW_MS).is_some());
    }

    #[test]
    fn calls_of_several_processes_count_together() {
        let limiter = MemoryLimiter::new(64);
        let question = |max_calls| {
            LimitQuestion::new(&LimitQuery {
                subject: LimitSubject { token_id: "a", version: 1 },
                plan: &Plan { concurrent_calls: Some(max_calls), ..plan() },
                charge: Charge { cost: 1, limits: None, opens_call: true },
                is_current: &|| true,
            })
        };
        limiter.open_call("a");
        limiter.set_calls_of(7, [("a".into(), 1)].into());
        assert!(!limiter.decide_for(8, &question(2), NOW_MS).unwrap().admitted);
        assert!(limiter.decide_for(8, &question(3), NOW_MS).unwrap().admitted);
        assert_eq!(limiter.open_calls("a"), 3);
        limiter.end_call_of(7, "a");
        limiter.forget_calls_of(8);
        assert_eq!(limiter.open_calls("a"), 1);
    }
}
