//! The endpoints of all upstreams, as the whole process sees them: which one gets the next request, which are ejected, what may be
//! retried, and how many requests are in flight. All workers share it; what every request changes, each worker counts for itself.

mod budget;
mod choose;
mod ejections;
mod endpoint_state;
mod permits;
mod rendezvous;
mod report;
#[cfg(test)]
mod tests;
mod upstream_state;
pub(super) mod watch;

pub(super) use choose::RoundRobin;
pub(super) use endpoint_state::{EndpointLoad, InFlight};
pub(super) use permits::{NoPermit, Permit};
pub(super) use rendezvous::hash;
pub use report::{EndpointReport, UpstreamReport};
pub(super) use upstream_state::UpstreamState;
