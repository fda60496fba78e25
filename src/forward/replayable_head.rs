//! The head of a request that was sent, for sending it again.

use http::header::{HeaderName, HeaderValue};
use http::{Extensions, Method, Request, Uri, Version};
use hyper::body::Body as _;

use crate::body::Body;

/// A request without its body. Every such request is kept and few are sent again, so its headers are kept as text: what is cheap is to
/// keep and to drop it.
pub(super) struct ReplayableHead {
    method: Method,
    uri: Uri,
    version: Version,
    /// A line for each: `!` if it is sensitive, else a blank; name, colon, value, and LF, which is in neither.
    headers: Vec<u8>,
    extensions: Extensions,
}

impl ReplayableHead {
    /// The head of a request without a body; `None` when it has one.
    pub(super) fn of_bodiless(request: &Request<Body>) -> Option<Self> {
        request.body().is_end_stream().then(|| Self::of(request))
    }

    pub(super) fn of(request: &Request<Body>) -> Self {
        let mut headers = Vec::with_capacity(512);
        for (name, value) in request.headers() {
            headers.push(if value.is_sensitive() { b'!' } else { b' ' });
            headers.extend_from_slice(name.as_str().as_bytes());
            headers.push(b':');
            headers.extend_from_slice(value.as_bytes());
            headers.push(b'\n');
        }
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers,
            extensions: Extensions::new(),
        }
    }

    /// Keeps the extensions, too: the case of header names is among them.
    pub(super) fn with_extensions(self, request: &Request<Body>) -> Self {
        Self { extensions: request.extensions().clone(), ..self }
    }

    /// The request again, without a body.
    pub(super) fn into_request(self) -> Box<Request<Body>> {
        let mut request = Box::new(Request::new(Body::Empty));
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        for line in self.headers.split(|byte| *byte == b'\n') {
            let Some((flag, line)) = line.split_first() else { continue };
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            let (name, value) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]));
            if let (Ok(name), Ok(mut value)) = (name, value) {
                value.set_sensitive(*flag == b'!');
                request.headers_mut().append(name, value);
            }
        }
        *request.extensions_mut() = self.extensions;
        request
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_request_without_a_body_is_the_same_again_with_every_header_line() {
        let request = Request::get("/calls?page=2").version(Version::HTTP_2).header("cookie", "a=1");
        let request = request.header("accept", "text/plain").header("cookie", "b=2").body(Body::Empty);
        let mut request = request.unwrap();
        let mut secret = HeaderValue::from_bytes(b"!:\t\xe9").unwrap();
        secret.set_sensitive(true);
        request.headers_mut().insert("!x", secret);
        request.headers_mut().insert("!y", HeaderValue::from_static(""));
        let again = ReplayableHead::of_bodiless(&request).unwrap().into_request();
        assert_eq!((again.method(), again.uri(), again.version()), (&Method::GET, request.uri(), Version::HTTP_2));
        assert_eq!(again.headers(), request.headers());
        assert!(again.headers()["!x"].is_sensitive() && !again.headers()["!y"].is_sensitive());
        assert!(matches!(again.body(), Body::Empty));
    }

    #[test]
    fn a_request_with_a_body_is_not_kept() {
        let request = Request::new(Body::Full(Bytes::from_static(b"once")));
        assert!(ReplayableHead::of_bodiless(&request).is_none());
    }
}
