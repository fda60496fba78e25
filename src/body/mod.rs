//! Bodies on their way through Callgate.

mod copy;
mod error;
mod incoming;
mod outgoing;
mod pace;
mod progress;

pub(crate) use copy::BodyCopy;
pub(crate) use error::{BodyError, BodyFault};
pub(crate) use incoming::{AskForBody, CallHalves, IncomingBody, LeftBody, StreamBody};
pub(crate) use outgoing::{Body, BodyGuard};
pub(crate) use progress::Progress;
