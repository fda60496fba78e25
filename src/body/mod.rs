//! Bodies on their way through Callgate.

mod copy;
mod error;
mod incoming;
mod outgoing;
mod pace;
mod progress;

pub(crate) use copy::BodyCopy;
pub use error::{BodyError, BodyFault};
pub(crate) use incoming::LeftBody;
pub use incoming::{AskForBody, CallHalves, IncomingBody, StreamBody};
pub use outgoing::Body;
pub(crate) use outgoing::BodyGuard;
pub use progress::Progress;
