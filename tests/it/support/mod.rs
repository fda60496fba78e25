//! What several tests need: real servers, started on free ports.

pub(crate) mod redis;
