//! Answers: their one body type, and the two shapes that most of them have.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use serde::Serialize;

/// The body of an answer: whole, or a stream that can't fail.
pub(super) type AnswerBody = UnsyncBoxBody<Bytes, Infallible>;

/// An answer.
pub(super) type Answer = Response<AnswerBody>;

/// An answer with a JSON body.
pub(super) fn json_answer(status: StatusCode, body: &impl Serialize) -> Answer {
    let text = serde_json::to_vec(body).expect("answers have text keys and finite numbers");
    let mut answer = Response::new(UnsyncBoxBody::default());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    *answer.body_mut() = Full::from(text).boxed_unsync();
    answer
}

/// An answer without a body.
pub(super) fn empty_answer(status: StatusCode) -> Answer {
    let mut answer = Response::new(Empty::new().boxed_unsync());
    *answer.status_mut() = status;
    answer
}
