//! Integration tests, in one binary: they speak to real parts that they start themselves.

mod auth;
mod support;
