//! Interim answers (1xx) of an upstream, made fit for the client: above all 103 Early Hints (RFC 8297).

use http::{Request, StatusCode, header};

use crate::body::Body;
use crate::config::Route;
use crate::listener::Interim;

use super::headers::clean_for_client;

/// Passes on what an upstream answers to this request before its answer proper. 100 and 101 are Callgate's own: the one is said
/// to a client whose body is read, the other opens a call.
pub(super) fn pass_on(request: &mut Request<Body>, interim: &Interim, route: &Route) {
    let sender = interim.sender();
    let edits = route.response_headers.clone();
    hyper::ext::on_informational(request, move |answer| {
        let status = answer.status();
        if matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
            return;
        }
        let mut headers = answer.headers().clone();
        clean_for_client(&mut headers);
        // It has no body, and must not speak of one (RFC 9110 §8.6).
        headers.remove(header::CONTENT_LENGTH);
        for name in &edits.remove {
            headers.remove(name);
        }
        sender.send(status, headers);
    });
}
