//! The answer to an OPTIONS that ends here.

use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

use crate::body::Body;

use super::ORDINARY_METHODS;

/// The answer to an OPTIONS that is not forwarded. `allow` is what the path takes; `None`: whatever there is.
#[must_use]
pub fn options(allow: Option<&HeaderValue>) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let allow = allow.cloned().unwrap_or(HeaderValue::from_static(ORDINARY_METHODS));
    response.headers_mut().insert(header::ALLOW, allow);
    response
}
