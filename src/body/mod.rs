//! Bodies on their way through Callgate.

mod copy;
mod driver;
mod error;
mod incoming;
mod outgoing;
mod pace;
mod pipe;
mod progress;
mod service;
mod upgraded;

pub(crate) use copy::BodyCopy;
pub(crate) use driver::Driver;
pub(crate) use error::{BodyError, BodyFault};
pub(crate) use incoming::{AskForBody, CallHalves, IncomingBody, StreamBody};
pub(crate) use outgoing::{Body, BodyGuard};
pub(crate) use pipe::{PipeSender, Taker, pipe};
pub(crate) use progress::Progress;
pub(crate) use service::ServiceBody;
pub(crate) use upgraded::UpgradedConnection;
