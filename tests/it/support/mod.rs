//! What several tests need: real servers, started on free ports.

pub mod redis;
