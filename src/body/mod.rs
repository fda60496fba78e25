//! Bodies on their way through Callgate.

mod copy;
mod error;
mod incoming;
mod outgoing;
mod pace;
mod pipe;
mod progress;
mod upgraded;

pub(crate) use copy::BodyCopy;
pub(crate) use error::{BodyError, BodyFault};
pub(crate) use incoming::{AskForBody, CallHalves, IncomingBody, StreamBody};
pub(crate) use outgoing::{Body, BodyGuard};
pub(crate) use pipe::{PipeSender, Taker, pipe};
pub(crate) use progress::Progress;
pub(crate) use upgraded::UpgradedConnection;
