//! May this token's request pass, now? Exact sliding windows over one log of admissions, in memory or in Redis.
//!
//! A request at time *t* is admitted if and only if, for each limit *n per w* of its plan, fewer than *n* admitted requests
//! of its token lie in *(t − w, t]*. A denied request writes nothing. A plan may change at any time: its limits are
//! tested on the log as it is, which remembers as far back as the longest window of the plan at the last admission.

mod answer;
mod bounded_map;
mod call_counts;
mod calls;
mod clock;
mod decision;
mod deny_cache;
mod hand_over;
mod limiter;
mod log;
mod log_bytes;
mod memory;
mod merge;
mod outcome;
mod pending_merges;
mod query;
mod redis;
mod report;
mod successor;
mod token_logs;

pub use calls::CallLease;
pub use clock::{ClockOrigin, Moment};
pub use decision::{Decision, ReportedWindow, Source, WindowStatus};
pub use deny_cache::DenyCache;
pub use hand_over::CallsByHolder;
pub use limiter::Limiter;
pub use log_bytes::DamagedLogs;
pub use memory::MemoryLimiter;
pub use merge::MERGE;
pub use outcome::{LimitOutcome, Unavailable};
pub use pending_merges::PendingMerges;
pub use query::{Charge, IsCurrent, LimitSubject};
pub use redis::{CALLS, ClockSkew, DECIDE, PAIR, RedisLimiter, on_invalidation};
pub use report::{LimitReport, WindowReport};
pub use successor::{LimitAnswer, LimitQuestion, SuccessorDecision, SuccessorRequest};
