//! Request bodies of the sample upstream: bounded JSON, and anything else frame by frame, each with a timeout.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::response::DemoError;

const MAX_JSON_BYTES: usize = 64 * 1024;
/// Bytes of a larger body that are read and discarded: a client that is still sending when its connection closes may
/// never see the response.
const MAX_DISCARDED_BYTES: usize = 1024 * 1024;
/// A body may make no progress for this long.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads a JSON body whole.
pub(super) async fn read_json(request: Request<Incoming>) -> Result<Vec<u8>, DemoError> {
    let is_json = is_json(request.headers());
    let (mut body, mut text) = (request.into_body(), Vec::new());
    while text.len() <= MAX_DISCARDED_BYTES
        && let Some(bytes) = next_bytes(&mut body).await?
    {
        text.extend_from_slice(&bytes);
    }
    match text.len() <= MAX_JSON_BYTES {
        false => Err(DemoError::BodyTooLarge),
        true if !is_json => Err(DemoError::NotDeclaredJson),
        true => Ok(text),
    }
}

/// The next bytes of a body, `None` at its end. Trailers are skipped.
pub(super) async fn next_bytes(body: &mut Incoming) -> Result<Option<Bytes>, DemoError> {
    loop {
        let frame = tokio::time::timeout(FRAME_TIMEOUT, body.frame()).await.map_err(|_| DemoError::BodyTimeout)?;
        match frame.transpose().map_err(|_| DemoError::BodyAborted)?.map(http_body::Frame::into_data) {
            None => return Ok(None),
            Some(Ok(bytes)) => return Ok(Some(bytes)),
            Some(Err(_trailers)) => {}
        }
    }
}

/// Whether the content type is JSON, with or without parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(kind)) = headers.get(CONTENT_TYPE).map(|kind| kind.to_str()) else { return false };
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn json_is_declared_with_or_without_parameters() {
        for (kind, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/json2", false),
            ("text/plain; a=application/json", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
            assert_eq!(is_json(&headers), expected, "{kind:?}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
