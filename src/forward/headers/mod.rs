//! Headers on their way through: those of one connection are removed in both directions, and Callgate's own are added (RFC 9110 §7.6,
//! RFC 7239).

mod detect;
mod edits;
mod kinds;
mod length;
#[cfg(test)]
mod tests;
mod to_client;
mod to_upstream;
mod trailers;

pub(super) use detect::{announces_body, has_events, has_websocket};
pub use detect::{asks_for_events, asks_for_websocket, is_grpc, is_last_hop};
pub(super) use length::settle_length;
pub use to_client::onto_client;
pub(super) use to_client::{clean_for_client, head_onto_client};
pub use to_upstream::onto_upstream;
pub(super) use to_upstream::preserved_host;
pub(super) use trailers::{clean_trailers_for_client, clean_trailers_for_upstream};
