//! Whether a connection of HTTP/1.1 goes on after an answer, and that the answer says it if not (RFC 9112 §9.3).

use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;

use crate::body::{IncomingBody, LeftBody};

use super::signals::Signals;

/// Bytes of a refused body that are read so that the connection can go on.
const MAX_REST: u64 = 64 << 10;

/// What of a request decides.
pub(super) struct KeepAlive {
    is_http10: bool,
    body: RequestBody,
}

enum RequestBody {
    /// There is none, or hyper holds all of it.
    Complete,
    Coming(LeftBody),
    /// The client waits to be asked for it (RFC 9110 §10.1.1). Nobody is asked for what is thrown away.
    Awaited,
}

impl KeepAlive {
    /// Takes a request as hyper gives it.
    pub(super) fn of(request: Request<Incoming>, signals: &Signals) -> (Request<IncomingBody>, Self) {
        let is_http10 = request.version() == Version::HTTP_10;
        let (head, body) = request.into_parts();
        // hyper throws away what it holds of a body if that has a length, but not chunks.
        let is_complete = body.is_end_stream() || (signals.owed() == 0 && body.size_hint().exact().is_some());
        let (incoming, body) = if is_complete {
            (IncomingBody::Hyper(body), RequestBody::Complete)
        } else if head.headers.contains_key(header::EXPECT) {
            (IncomingBody::Hyper(body), RequestBody::Awaited)
        } else {
            let (incoming, left) = IncomingBody::lingering(body);
            (incoming, RequestBody::Coming(left))
        };
        (Request::from_parts(head, incoming), Self { is_http10, body })
    }

    /// Has the connection go on, or says in the answer that it does not.
    pub(super) fn decide<B: Body>(self, answer: &mut Response<B>, signals: &Signals) {
        let goes_on = match self.body {
            RequestBody::Complete => true,
            RequestBody::Awaited => signals.owed() == 0,
            RequestBody::Coming(left) => {
                let is_short = signals.owed() <= MAX_REST;
                if is_short && !says_close(answer) {
                    left.discard();
                }
                is_short
            }
        };
        // An upload may outlive an answer that is none of a refusal.
        let is_refusal = !answer.status().is_success() && !answer.status().is_informational();
        if is_refusal && !goes_on {
            say_close(answer);
        }
        // hyper promises clients of HTTP/1.0 to go on, whatever the answer says, unless that has their version.
        if self.is_http10 && (says_close(answer) || !has_end(answer)) {
            say_close(answer);
            *answer.version_mut() = Version::HTTP_10;
        }
    }
}

fn say_close<B>(answer: &mut Response<B>) {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
}

/// Has this answer be the last one on its connection, unless it is a call.
pub(super) fn end_with<B>(answer: &mut Response<B>) {
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        say_close(answer);
    }
}

fn says_close<B>(answer: &Response<B>) -> bool {
    answer.headers().get(header::CONNECTION).is_some_and(|option| option == "close")
}

/// Whether the client sees where the answer ends before the connection does. A client of HTTP/1.0 knows no chunks.
fn has_end<B: Body>(answer: &Response<B>) -> bool {
    let body = answer.body();
    body.is_end_stream() || body.size_hint().exact().is_some() || answer.headers().contains_key(header::CONTENT_LENGTH)
}
