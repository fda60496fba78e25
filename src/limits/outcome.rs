//! What the limiter returns.

use super::calls::CallLease;
use super::decision::Decision;

/// What became of a request.
pub enum LimitOutcome {
    /// It was decided. If it was admitted and opens a call of a token whose calls are limited, it comes with a lease, to be
    /// kept until the call ends.
    Decided(Decision, Option<CallLease>),
    /// The token's record has another version by now, or is gone: nothing was counted, the record must be read again.
    Stale,
}

/// Redis does not answer, and the policy is to admit no request then, or the record is not known to be current.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Redis does not answer, and store.redis.on_failure is deny or the token may have changed")]
pub struct Unavailable;
