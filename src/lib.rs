//! Callgate: a reverse-proxy gateway for voice-call APIs with Bearer tokens and exact, shared rate limits.
//!
//! `ARCHITECTURE.md` draws the way of a request through these modules; a module uses only what stands below it.

pub mod admin;
pub mod auth;
pub mod body;
pub mod cli;
pub mod config;
mod deadline;
#[cfg(feature = "demo")]
pub mod demo;
pub mod forward;
pub mod gateway;
pub mod limits;
pub mod listener;
pub mod response;
pub mod route;
mod selftest;
mod server;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod tokens;
