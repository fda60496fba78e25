//! The integration tests: one binary, so that they are linked once and run side by side.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod admin;
mod auth;
mod config;
mod contract;
mod deploy;
mod drain;
mod extended;
mod foreign;
mod forwarding;
mod framing;
mod instances;
mod layers;
mod limits;
mod metrics;
mod outage;
mod patience;
mod poison;
mod proof;
mod selftest;
mod streams;
mod support;
mod topologies;
mod upstreams;
mod voice;
mod withdrawal;
