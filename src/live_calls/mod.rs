//! The calls that are open in this process, for people: what each is, how much it has carried, and a way to end it.

mod call;
mod list;

pub(crate) use call::{CallId, CallKind, CallOrigin, CallReport, CallState, CallToken};
pub(crate) use list::{CallFilter, LiveCall, LiveCalls};
