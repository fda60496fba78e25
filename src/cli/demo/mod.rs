//! `callgate demo`: a whole gateway with everything it needs.

pub mod voice;
