//! WebSockets that begin on an HTTP/2 connection (RFC 8441). Behind the listener, and for the upstream, they are HTTP/1.1 GETs that
//! ask for an upgrade.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use data_encoding::BASE64;
use h2::ext::Protocol;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};

/// What the server appends to the key before it hashes both (RFC 6455 §1.3).
const ACCEPT_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Marks a request that was an extended CONNECT.
#[derive(Debug, Clone, Copy)]
struct ExtendedConnect;

/// Turns an extended CONNECT that asks for a WebSocket into a GET. Any other CONNECT stays one.
pub fn extended_connect_to_upgrade<B>(request: &mut Request<B>) {
    let is_websocket = |protocol: &Protocol| protocol.as_str() == "websocket";
    if request.version() == Version::HTTP_2
        && *request.method() == Method::CONNECT
        && request.extensions().get().is_some_and(is_websocket)
    {
        *request.method_mut() = Method::GET;
        request.extensions_mut().insert(ExtendedConnect);
    }
}

/// Whether [`extended_connect_to_upgrade`] has turned this request into a GET.
pub(super) fn was_extended_connect<B>(request: &Request<B>) -> bool {
    request.extensions().get::<ExtendedConnect>().is_some()
}

/// The WebSocket handshake with the upstream; the client has no part in it.
pub(super) struct Handshake {
    accept: String,
}

impl Handshake {
    /// Puts a random key on the request.
    pub(super) fn start(headers: &mut HeaderMap) -> Self {
        let key = BASE64.encode(&fastrand::u128(..).to_ne_bytes());
        let accept = accept_for(&key);
        // Base64 is valid in a header.
        if let Ok(key) = HeaderValue::try_from(key) {
            headers.insert(header::SEC_WEBSOCKET_KEY, key);
        }
        Self { accept }
    }

    /// Whether the upstream that switched has seen this key (RFC 6455 §4.2.2).
    pub(super) fn is_accepted(&self, headers: &HeaderMap) -> bool {
        headers.get(header::SEC_WEBSOCKET_ACCEPT).is_some_and(|accept| accept == self.accept.as_str())
    }
}

fn accept_for(key: &str) -> String {
    BASE64.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, [key, ACCEPT_SUFFIX].concat().as_bytes()).as_ref())
}

/// Turns the answer 101 into the answer to a CONNECT: 200 (RFC 8441 §5).
pub(super) fn into_connect_response<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::OK;
    for name in [header::SEC_WEBSOCKET_ACCEPT, header::CONTENT_LENGTH, header::CONNECTION, header::UPGRADE] {
        response.headers_mut().remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accepted_key_is_that_of_rfc_6455() {
        // §1.3.
        assert_eq!(accept_for("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut headers = HeaderMap::new();
        let handshake = Handshake::start(&mut headers);
        let key = headers[header::SEC_WEBSOCKET_KEY].to_str().unwrap();
        assert_eq!(BASE64.decode(key.as_bytes()).unwrap().len(), 16);
        assert!(!handshake.is_accepted(&headers));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept_for(key).parse().unwrap());
        assert!(handshake.is_accepted(&headers));
    }
}
