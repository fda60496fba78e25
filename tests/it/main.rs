//! The integration tests: one binary, so that they are linked once and run side by side.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod auth;
mod config;
mod contract;
mod deploy;
mod drain;
mod forwarding;
mod framing;
mod layers;
mod limits;
mod streams;
mod support;
mod topologies;
mod voice;
