//! What a connection of HTTP/1.1 brings.

use bytes::Bytes;
use http::{HeaderMap, Request};

use crate::body::IncomingBody;

use super::super::head::{Asks, BodyLength, RequestFault};

/// What comes next on a connection.
#[derive(Debug)]
pub(super) enum Part {
    Head(Box<Request<IncomingBody>>, BodyLength, Asks),
    Data(Bytes),
    /// The end of a chunked body. One of known length ends with its last byte.
    End(Option<HeaderMap>),
}

/// Why nothing more is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadFault {
    /// What follows is no request.
    Request(RequestFault),
    /// The body of a request breaks its framing.
    Body,
}
