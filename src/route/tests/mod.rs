//! The table of routes as a whole.

mod hosts;
mod spellings;
