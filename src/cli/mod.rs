//! The commands.

pub mod check;
pub mod demo;
pub mod token;
