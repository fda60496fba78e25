//! The limiter against an oracle, against real time, and against a Redis that fails.

mod calls;
mod calls_open;
mod calls_streams;
mod failures;
mod footprint;
mod histories;
mod in_flight;
mod late_answers;
mod looking;
mod merging;
mod oracle;
mod plan_changes;
mod plans;
mod real_clock;
mod recovery;
mod retry_after;
mod route_limits;
mod skew;
mod stores;
