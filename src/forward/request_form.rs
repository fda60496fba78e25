//! The form of a request in HTTP/1.1 and in HTTP/2. It may need both, one after the other, when it is sent again.

use http::header::{self, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Method, Request, Uri, Version};
use http_body::Body as _;

use crate::body::Body;

/// Gives a request the form of HTTP/2 (RFC 9113 §8.3.1): the host moves from `Host` to the target, and connection headers go.
/// `fallback` is the host where the client named none.
pub(super) fn onto_http2(request: &mut Request<Body>, tls: bool, fallback: &HeaderValue) {
    let host = request.headers_mut().remove(header::HOST);
    request.headers_mut().remove(header::CONNECTION);
    request.headers_mut().remove(header::TRANSFER_ENCODING);
    let read = |host: &HeaderValue| Authority::try_from(host.as_bytes()).ok();
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = host.as_ref().and_then(read).or_else(|| read(fallback));
    // A URI with a scheme, an authority and a path is valid.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    *request.version_mut() = Version::HTTP_2;
}

/// Gives a request the form of HTTP/1.1, in which the length of a body is always said: hyper leaves out the body of a GET or HEAD
/// otherwise, and some services ask for the length of a POST without one (RFC 9110 §8.6).
pub(super) fn onto_http1(request: &mut Request<Body>) {
    if !request.headers().contains_key(header::CONTENT_LENGTH) {
        if request.body().size_hint().exact().is_none() {
            request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        } else if request.body().is_end_stream() && has_meaningful_body(request.method()) {
            request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
    }
    if request.version() != Version::HTTP_2 {
        return;
    }
    if let Some(target) = request.uri().path_and_query() {
        *request.uri_mut() = Uri::from(target.clone());
    }
    if request.headers().contains_key(header::TE) {
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    *request.version_mut() = Version::HTTP_11;
}

/// Whether requests of this method are expected to have a body.
fn has_meaningful_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}
