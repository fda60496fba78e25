//! Listeners: bound sockets, what accepts on them, and the connections that come out.

mod accept;
mod bind;
mod connection;
mod date;
mod framing;
mod gate;
mod handler;
mod head;
mod http2;
mod interim;
mod interim_queue;
mod keep_alive;
mod peer;
mod proxy_protocol;
mod service;
mod signals;
mod slot;
mod stream;
#[cfg(test)]
mod tests;
mod tls;

pub use crate::tls::TlsError;
pub use bind::bind;
pub use handler::Handler;
pub use head::{RequestFault, is_authority};
pub use interim::{Interim, InterimSender};
pub use peer::{ActiveRequest, ActivityGuard, Peer};
pub use service::{Listener, Tls};
pub use slot::ConnectionSlots;
pub use tls::{Certificates, server_config};
