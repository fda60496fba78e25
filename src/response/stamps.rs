//! Headers that are stamped on every answer, the upstream's and Callgate's own.

use std::fmt::Write as _;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::config::{self, Cors, Limit, REQUEST_ID};
use crate::limits::Decision;

const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const X_RATELIMIT_SHADOW: HeaderName = HeaderName::from_static("x-ratelimit-shadow");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Stamps the request's id.
pub fn stamp_request_id(headers: &mut HeaderMap, request_id: &HeaderValue) {
    headers.insert(REQUEST_ID, request_id.clone());
}

/// Stamps the state of the windows of `limits`, in the families of headers that the configuration asks for.
pub fn stamp_limits<'a>(
    headers: &mut HeaderMap,
    decision: &Decision,
    limits: impl Iterator<Item = &'a Limit>,
    families: &config::LimitSettings,
) {
    let Some(reported) = decision.reported() else { return };
    if families.x_ratelimit {
        headers.insert(X_RATELIMIT_LIMIT, HeaderValue::from(reported.limit));
        headers.insert(X_RATELIMIT_REMAINING, HeaderValue::from(reported.remaining));
        headers.insert(X_RATELIMIT_RESET, HeaderValue::from(reported.reset_s));
    }
    if !families.ietf {
        return;
    }
    // `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers): lists of items, one for each window.
    let (mut policy, mut current) = (String::new(), String::new());
    for (limit, window) in limits.zip(decision.windows()) {
        let comma = if policy.is_empty() { "" } else { ", " };
        let (name, window_s) = (&limit.name, window.window_ms.div_ceil(1000));
        // A `String` takes everything.
        let _ = write!(policy, "{comma}\"{name}\";q={};w={window_s}", window.limit);
        let _ = write!(current, "{comma}\"{name}\";r={};t={}", window.remaining(), decision.wait_s(window));
    }
    if let (Ok(policy), Ok(current)) = (HeaderValue::try_from(policy), HeaderValue::try_from(current)) {
        headers.insert(RATELIMIT_POLICY, policy);
        headers.insert(RATELIMIT, current);
    }
}

/// Marks the answer to a request that a plan in shadow mode denied.
pub fn stamp_shadow_denial(headers: &mut HeaderMap) {
    headers.insert(X_RATELIMIT_SHADOW, HeaderValue::from_static("denied"));
}

/// CORS (the Fetch standard): lets pages from `origin` read an answer, and the limits that are stamped on it, if the route allows them.
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
