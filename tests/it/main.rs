//! The integration tests: one binary, so that they are linked once and run side by side.
#![allow(clippy::unwrap_used)]

mod auth;
mod deploy;
mod layers;
mod limits;
mod support;
mod voice;
