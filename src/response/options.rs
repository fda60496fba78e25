//! The answers to an OPTIONS that ends here.

use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode};

use crate::body::Body;
use crate::config::Cors;

/// What a resource can allow where no route says otherwise: everything but CONNECT and TRACE.
pub(super) const ORDINARY_METHODS: &str = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";

/// The answer to an OPTIONS that is not forwarded. `allow`: what the path takes; `None`: every ordinary method.
pub fn options(allow: Option<&HeaderValue>) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let allow = allow.cloned().unwrap_or(HeaderValue::from_static(ORDINARY_METHODS));
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

/// The answer to a preflight for a request with this method; `stamp_cors` adds the pages that may read it.
pub fn preflight(cors: &Cors, method: &Method) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    // A browser remembers these methods for the path, so the answer names only the one that was asked for: others may be other routes'.
    if let Ok(method) = HeaderValue::from_str(method.as_str()) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, method);
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, cors.headers.clone());
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(cors.max_age.as_secs()));
    let varying = HeaderValue::from_static("Access-Control-Request-Method, Access-Control-Request-Headers");
    headers.insert(header::VARY, varying);
    response
}
