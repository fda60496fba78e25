//! What is kept of a request that goes out, so that it can be sent again.

use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version};
use hyper::body::Body as _;

use crate::body::Body;

/// A request without its body. Few are sent again, and every one is kept: a list costs half of what a second map does.
pub(super) struct Kept {
    method: Method,
    uri: Uri,
    version: Version,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Kept {
    /// A request that has no body; `None` when it has one.
    pub(super) fn whole(request: &Request<Body>) -> Option<Self> {
        request.body().is_end_stream().then(|| Self::head(request))
    }

    /// A request's head.
    pub(super) fn head(request: &Request<Body>) -> Self {
        let headers = request.headers().iter().map(|(name, value)| (name.clone(), value.clone()));
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: headers.collect(),
        }
    }

    /// The request again, without a body.
    pub(super) fn request(self) -> Request<Body> {
        let mut request = Request::new(Body::Empty);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        let headers = request.headers_mut();
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        request
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_has_no_body_is_the_same_again_with_every_line_of_its_headers() {
        let request = Request::get("/calls?page=2").version(Version::HTTP_2).header("cookie", "a=1");
        let request = request.header("accept", "text/plain").header("cookie", "b=2").body(Body::Empty).unwrap();
        let again = Kept::whole(&request).unwrap().request();
        assert_eq!((again.method(), again.uri(), again.version()), (&Method::GET, request.uri(), Version::HTTP_2));
        assert_eq!(again.headers(), request.headers());
        assert!(matches!(again.body(), Body::Empty));
    }

    #[test]
    fn what_has_a_body_is_not_kept() {
        let request = Request::new(Body::Full(Bytes::from_static(b"once")));
        assert!(Kept::whole(&request).is_none());
    }
}
