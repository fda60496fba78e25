//! The answer to an OPTIONS that ends here.

use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

use crate::body::Body;

/// What a resource can allow where no route says otherwise: everything but CONNECT and TRACE.
pub(super) const ORDINARY_METHODS: &str = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";

/// The answer to an OPTIONS that is not forwarded. `allow`: what the path takes; `None`: every ordinary method.
#[must_use]
pub fn options(allow: Option<&HeaderValue>) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let allow = allow.cloned().unwrap_or(HeaderValue::from_static(ORDINARY_METHODS));
    response.headers_mut().insert(header::ALLOW, allow);
    response
}
