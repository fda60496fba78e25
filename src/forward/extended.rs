//! WebSockets that begin on an HTTP/2 connection (RFC 8441): to everybody behind the listener, and to the upstream, they are the
//! GETs that ask for an upgrade on HTTP/1.1.

use h2::ext::Protocol;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};

/// Marks a request that was an extended CONNECT.
#[derive(Debug, Clone, Copy)]
struct ExtendedConnect;

/// Makes an extended CONNECT that asks for a WebSocket the GET that it stands for. Any other CONNECT stays one.
pub fn extended_connect_to_upgrade<B>(request: &mut Request<B>) {
    let asks = |protocol: &Protocol| protocol.as_str() == "websocket";
    if request.version() == Version::HTTP_2
        && *request.method() == Method::CONNECT
        && request.extensions().get().is_some_and(asks)
    {
        *request.method_mut() = Method::GET;
        request.extensions_mut().insert(ExtendedConnect);
    }
}

/// Whether a request was one.
pub(super) fn is_unfolded<B>(request: &Request<B>) -> bool {
    request.extensions().get::<ExtendedConnect>().is_some()
}

/// The handshake with the upstream, of which the client knows nothing.
pub(super) struct Handshake {
    accept: String,
}

impl Handshake {
    /// Puts a key on the request.
    pub(super) fn begin(headers: &mut HeaderMap) -> Self {
        let key = generate_key();
        let accept = derive_accept_key(key.as_bytes());
        // Base64 is what a header may hold.
        if let Ok(key) = HeaderValue::try_from(key) {
            headers.insert(header::SEC_WEBSOCKET_KEY, key);
        }
        Self { accept }
    }

    /// Whether the upstream that switched has seen this key (RFC 6455 §4.2.2).
    pub(super) fn is_accepted(&self, headers: &HeaderMap) -> bool {
        headers.get(header::SEC_WEBSOCKET_ACCEPT).is_some_and(|accept| accept.as_bytes() == self.accept.as_bytes())
    }

    /// Makes the switch the answer to a CONNECT: 200 (RFC 8441 §5).
    pub(super) fn fold<B>(response: &mut Response<B>) {
        *response.status_mut() = StatusCode::OK;
        for name in [header::SEC_WEBSOCKET_ACCEPT, header::CONTENT_LENGTH, header::CONNECTION, header::UPGRADE] {
            response.headers_mut().remove(name);
        }
    }
}
