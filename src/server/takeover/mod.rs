//! A takeover: a new process gets the listening sockets of the one that runs, and with the memory store all that its limiter
//! knows, over a Unix socket. Then the old one drains.
//!
//! | The new process (`inheritance.rs`) | The old one (`handover.rs`) |
//! | --- | --- |
//! | Hello | Welcome: the sockets |
//! | Ready: everything is built | freezes its limiter; State: calls and logs |
//! | Imported | Verdict: go on |
//! | accepts; Serving | drains, and asks the new one for decisions (`link.rs`, `holders.rs`) |
//!
//! Whatever fails before the verdict leaves the old process as it was, because it has never stopped accepting. With the verdict the
//! new one accepts, whether or not its `Serving` arrives.

mod error;
mod handover;
mod holders;
mod inheritance;
mod link;
mod message;
mod wire;

pub(super) use error::TakeoverError;
pub(super) use handover::{HeldSocket, Predecessor};
pub(super) use holders::Holders;
pub(super) use inheritance::{Inheritance, connect};
pub(super) use wire::fits;
