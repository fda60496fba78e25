//! The responses of the sample upstream.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde::Serialize;

pub(super) type DemoResponse = Response<UnsyncBoxBody<Bytes, Infallible>>;

pub(super) fn json_response(status: StatusCode, body: &impl Serialize) -> DemoResponse {
    let text = serde_json::to_vec(body).expect("responses have text keys and finite numbers");
    let mut response = Response::new(Full::from(text).boxed_unsync());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) fn stream_response(kind: &'static str, chunks: impl Stream<Item = Bytes> + Send + 'static) -> DemoResponse {
    let frames = chunks.map(|bytes| Ok(Frame::data(bytes)));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

pub(super) fn empty_response(status: StatusCode) -> DemoResponse {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}
