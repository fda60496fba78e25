//! The token file of the memory store: how it is read and edited.

mod atomic_replace;
mod check;
mod edit;
mod fast_path;
mod parse;
#[cfg(test)]
mod tests;
mod text;
mod token_file;
mod trail;
mod usage;

pub(crate) use check::check_tokens;
pub(super) use token_file::TokenFile;
pub(crate) use token_file::{ServedFile, Stamp};
