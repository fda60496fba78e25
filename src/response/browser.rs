//! CORS (the Fetch standard): which pages may read an answer.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};

use crate::body::Body;
use crate::config::{self, Cors};

use super::stamps::X_RATELIMIT_SHADOW;

/// The answer to a preflight for a request with this method; [`stamp_cors`] adds the pages that may read it.
#[must_use]
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

/// Lets pages from `origin` read an answer, and the limits that are stamped on it, if the route allows them.
pub fn stamp_cors(
    headers: &mut HeaderMap,
    cors: &Cors,
    origin: Option<&HeaderValue>,
    families: &config::LimitSettings,
) {
    // No browser takes "*" where cookies may be sent along.
    let for_all = cors.is_for_all() && !cors.credentials;
    if !for_all {
        // A cache must not give one page the answer for another.
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    let Some(origin) = origin.filter(|origin| cors.allows(origin)) else { return };
    let allowed = if for_all { HeaderValue::from_static("*") } else { origin.clone() };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    if cors.credentials {
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    let mut exposed = vec!["x-request-id", "retry-after", "www-authenticate"];
    if families.x_ratelimit {
        exposed.extend(["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"]);
    }
    if families.ietf {
        exposed.extend(["ratelimit", "ratelimit-policy"]);
    }
    if headers.contains_key(X_RATELIMIT_SHADOW) {
        exposed.push("x-ratelimit-shadow");
    }
    exposed.extend(cors.expose.iter().map(http::HeaderName::as_str));
    // Names of headers are what a header can hold.
    if let Ok(exposed) = HeaderValue::try_from(exposed.join(", ")) {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
}
