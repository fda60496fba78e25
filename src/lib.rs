//! Callgate: a reverse-proxy gateway for voice-call APIs with Bearer tokens and exact, shared rate limits.
//!
//! `ARCHITECTURE.md` draws the way of a request through these modules; a module uses only what stands below it.

mod admin;
pub mod auth;
mod backoff;
mod bearer;
pub mod body;
pub mod cli;
pub mod config;
mod deadline;
#[cfg(feature = "demo")]
pub mod demo;
pub mod forward;
pub mod gateway;
mod gcra;
mod hash;
mod http2;
pub mod limits;
pub mod listener;
mod occupancy;
pub mod response;
pub mod route;
mod selftest;
pub mod server;
mod sharded;
pub mod shutdown;
pub mod store;
pub mod telemetry;
mod tls;
pub mod tokens;
