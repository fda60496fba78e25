//! Callgate: a reverse-proxy gateway for voice-call APIs with Bearer tokens and exact, shared rate limits.
//!
//! `ARCHITECTURE.md` draws the way of a request through these modules; a module uses only what stands below it.

pub mod cli;
pub mod config;
pub mod store;
