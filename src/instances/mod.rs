//! The instances that share a Redis: which are running, and questions that one asks all of them.
//!
//! Each instance writes itself into the hash `<namespace>:instances` every few seconds. A question is published on the channel of
//! announcements. Each instance that hears it appends its answer to the list `<namespace>:answers:<name of the question>`.

mod calls;
mod heartbeat;
mod instance;
mod pings;
mod question;
mod report;
mod scripts;

pub(crate) use calls::{CallPage, EndOutcome};
pub(crate) use instance::Instances;
