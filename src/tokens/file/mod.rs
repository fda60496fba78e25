//! The token file of the memory store: how it is read and edited.

mod atomic_replace;
mod check;
mod edit;
mod parse;
mod read;
#[cfg(test)]
mod tests;
mod text;
mod token_file;
mod trail;
mod usage;

pub use check::check_tokens;
pub(crate) use read::{Stamp, load, read_records};
pub use token_file::TokenFile;
