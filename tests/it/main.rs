//! Integration tests, in one binary: they speak to real parts that they start themselves.
#![allow(clippy::unwrap_used)]

mod limits;
mod support;
