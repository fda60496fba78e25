//! Listeners: bound sockets, what accepts on them, and the connections that come out.

mod accept;
mod authority;
mod bind;
mod client_stream;
mod connection;
mod date;
mod forwarded;
mod handler;
mod head;
mod http1;
mod http2;
mod interim;
mod liveness;
mod open_streams;
mod peer;
mod proxy_protocol;
mod reused_handler;
mod service;
mod slot;
mod stream;
mod tickets;
mod tls;
mod validity_watch;
mod wakeups;

pub(crate) use crate::tls::TlsError;
pub(crate) use authority::is_authority;
pub(crate) use bind::bind;
pub use forwarded::ForwardedClient;
pub(crate) use handler::Handler;
pub(crate) use head::RequestFault;
#[cfg(feature = "fuzz")]
pub use http1::fuzzing;
pub(crate) use interim::Interim;
pub(crate) use peer::{ActiveRequest, Peer, PeerCall, Transport};
pub(crate) use service::{Listener, Serving};
pub(crate) use slot::ConnectionSlots;
pub(crate) use tls::{Certificates, Tickets, Tls, random_tickets, server_config};
pub(crate) use validity_watch::ValidityWatch;
