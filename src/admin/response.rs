//! Responses of the admin listener: text and JSON that no cache keeps.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::tokens::TokenView;

pub(super) type AdminResponse = Response<AdminBody>;

/// The body of a response.
pub(super) enum AdminBody {
    Whole(Full<Bytes>),
    /// It lasts for as long as somebody sends.
    Events {
        events: mpsc::Receiver<Bytes>,
        /// For one listener, until it has had the last event.
        _permit: OwnedSemaphorePermit,
    },
}

impl Body for AdminBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(cx),
            Self::Events { events, .. } => events.poll_recv(cx).map(|event| event.map(|event| Ok(Frame::data(event)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Events { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Events { .. } => SizeHint::default(),
        }
    }
}

/// Server-sent events, as they are received.
pub(super) fn event_stream(events: mpsc::Receiver<Bytes>, permit: OwnedSemaphorePermit) -> AdminResponse {
    let mut response = response(StatusCode::OK, "text/event-stream", "");
    *response.body_mut() = AdminBody::Events { events, _permit: permit };
    response
}

pub(super) fn json_response(status: StatusCode, body: &impl Serialize) -> AdminResponse {
    // Bodies have text keys and no numbers that JSON lacks.
    let text = serde_json::to_string(body).unwrap_or_else(|_| "{}".to_owned());
    response(status, "application/json", text + "\n")
}

/// One token with its `ETag`, and what `more` says besides.
pub(super) fn token_response(status: StatusCode, token: &TokenView<'_>, more: Value) -> AdminResponse {
    let mut body = json!(token);
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    let mut response = json_response(status, &body);
    set_header(&mut response, header::ETAG, etag(token.version));
    response
}

pub(super) fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> AdminResponse {
    let mut response = Response::new(AdminBody::Whole(Full::new(body.into())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Sets a header whose value is made here: of digits, ids, method names and quoted numbers, which are always valid.
pub(super) fn set_header(response: &mut AdminResponse, name: HeaderName, value: impl TryInto<HeaderValue>) {
    if let Ok(value) = value.try_into() {
        response.headers_mut().insert(name, value);
    }
}

/// The version of a token as an `ETag`.
pub(super) fn etag(version: u64) -> String {
    format!("\"{version}\"")
}
