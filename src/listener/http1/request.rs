//! A head that was judged, as a request.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Extensions, Method, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use crate::body::IncomingBody;

use super::super::head::{self, Asks, BodyLength, HeadLimits, RequestFault};

/// Room for the headers of most requests, and for those that are added on the way.
const HEADERS: usize = 24;

/// Judges a whole head and makes a request of it, still without its body.
pub(super) fn build(
    bytes: &Bytes,
    limits: &HeadLimits,
    remembers_case: bool,
) -> Result<(Box<Request<IncomingBody>>, BodyLength, Asks), RequestFault> {
    let mut headers = HeaderMap::with_capacity(HEADERS);
    let mut is_odd = false;
    let head = head::judge(bytes, limits, |name, value| {
        // Whatever was judged good is good here, too.
        match (HeaderName::from_bytes(name), HeaderValue::from_maybe_shared(bytes.slice_ref(value))) {
            (Ok(name), Ok(value)) => is_odd |= headers.try_append(name, value).is_err(),
            _ => is_odd = true,
        }
    })?;
    if is_odd {
        return Err(RequestFault::HeadersTooLarge);
    }
    let mut request = Box::new(Request::new(IncomingBody::Empty));
    *request.method_mut() = Method::from_bytes(head.method).map_err(|_| BAD_TARGET)?;
    *request.uri_mut() = target(bytes.slice_ref(head.target))?;
    *request.version_mut() = if head.is_http10 { Version::HTTP_10 } else { Version::HTTP_11 };
    *request.headers_mut() = headers;
    if remembers_case {
        *request.extensions_mut() = header_case(bytes);
    }
    Ok((request, head.body, head.asks))
}

const BAD_TARGET: RequestFault = RequestFault::Malformed("malformed request target");

fn target(bytes: Bytes) -> Result<Uri, RequestFault> {
    if bytes.first() == Some(&b'/') {
        return PathAndQuery::from_maybe_shared(bytes).map(Uri::from).map_err(|_| BAD_TARGET);
    }
    Uri::from_maybe_shared(bytes).map_err(|_| BAD_TARGET)
}

/// The spelling of header names. hyper keeps it in a type that it alone can name, so a server of hyper's reads the head.
fn header_case(head: &[u8]) -> Extensions {
    let kept = Arc::new(Mutex::new(Extensions::new()));
    let service = hyper::service::service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>();
        *kept.lock().unwrap_or_else(PoisonError::into_inner) = std::mem::take(request.extensions_mut());
        std::future::ready(Ok::<_, Infallible>(Response::new(String::new())))
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.preserve_header_case(true).header_read_timeout(None).max_buf_size(head.len().max(8192) * 2);
    let io = TokioIo::new(tokio::io::join(head, tokio::io::sink()));
    // All of it is there: one turn is enough.
    let _ = pin!(builder.serve_connection(io, service)).poll(&mut Context::from_waker(Waker::noop()));
    std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner))
}
