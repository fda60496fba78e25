//! Callgate: a reverse-proxy gateway for voice-call APIs with Bearer tokens and exact, shared rate limits.
//!
//! `ARCHITECTURE.md` draws the way of a request through these modules; a module uses only what stands below it.

mod accounts;
mod admin;
pub mod auth;
mod backoff;
mod bearer;
mod body;
mod certificates;
pub mod cli;
mod color;
pub mod config;
mod deadline;
#[cfg(feature = "demo")]
pub mod demo;
pub mod forward;
mod gateway;
mod gcra;
mod hash;
mod http2;
mod instances;
pub mod limits;
mod listener;
mod live_calls;
mod occupancy;
mod per_worker;
mod progress;
pub mod response;
pub mod route;
mod selftest;
mod server;
mod sharded;
mod shutdown;
pub mod store;
pub mod telemetry;
mod ticket_keys;
mod tls;
pub mod tokens;

// For the benchmarks alone.
#[doc(hidden)]
pub use server::InProcess;

/// What the fuzz targets call.
#[cfg(feature = "fuzz")]
pub use listener::fuzzing;
