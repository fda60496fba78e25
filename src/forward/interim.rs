//! Interim answers (1xx) of an upstream, prepared for the client: above all 103 Early Hints (RFC 8297).

use http::{Request, StatusCode, header};

use crate::body::Body;
use crate::config::Route;
use crate::listener::Interim;

use super::headers::clean_for_client;

/// Passes on the interim answers to this request. 100 and 101 are Callgate's own: it sends 100 to a client when it reads the body, and
/// 101 opens a call. `keeps_limits`: with the upstream's own limits.
pub(super) fn pass_on(request: &mut Request<Body>, interim: &Interim, route: &Route, keeps_limits: bool) {
    let sender = interim.sender();
    let edits = route.response_headers.clone();
    hyper::ext::on_informational(request, move |answer| {
        let status = answer.status();
        if matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
            return;
        }
        let mut headers = answer.headers().clone();
        clean_for_client(&mut headers, keeps_limits);
        // An interim answer has no body, so it must not have a length (RFC 9110 §8.6).
        headers.remove(header::CONTENT_LENGTH);
        for name in &edits.remove {
            headers.remove(name);
        }
        sender.send(status, headers);
    });
}
