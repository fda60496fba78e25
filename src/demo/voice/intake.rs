//! Request bodies: JSON read whole within a bound, anything else frame by frame, neither without a deadline.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::problem::Problem;

/// Bytes of a JSON body.
pub(super) const MAX_JSON: usize = 64 * 1024;
/// Bytes that are read and thrown away behind a JSON body that is too large: a client that is still sending when its
/// connection closes may never see the answer.
const MAX_DISCARD: usize = 1024 * 1024;
/// A body may make no progress for this long.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads a JSON body whole.
///
/// # Errors
/// [`Problem::NotDeclaredJson`], [`Problem::TooLarge`], or what [`next_bytes`] says.
pub(super) async fn read_json(request: Request<Incoming>) -> Result<Vec<u8>, Problem> {
    let (head, mut body) = request.into_parts();
    let declared = is_json(&head.headers);
    let mut text = Vec::new();
    let mut seen = announced_length(&head.headers).filter(|&length| length > MAX_DISCARD).unwrap_or(0);
    while seen <= MAX_DISCARD
        && let Some(bytes) = next_bytes(&mut body).await?
    {
        seen += bytes.len();
        if seen <= MAX_JSON {
            text.extend_from_slice(&bytes);
        }
    }
    match (declared, seen <= MAX_JSON) {
        (_, false) => Err(Problem::TooLarge),
        (false, true) => Err(Problem::NotDeclaredJson),
        (true, true) => Ok(text),
    }
}

/// The next bytes of a body, `None` at its end; trailers are passed over.
///
/// # Errors
/// [`Problem::Slow`] when nothing comes for 30 seconds, [`Problem::BrokenBody`] when the client goes away.
pub(super) async fn next_bytes(body: &mut Incoming) -> Result<Option<Bytes>, Problem> {
    loop {
        let frame = tokio::time::timeout(FRAME_TIMEOUT, body.frame()).await.map_err(|_| Problem::Slow)?;
        match frame.map(|frame| frame.map(http_body::Frame::into_data)) {
            None => return Ok(None),
            Some(Ok(Ok(bytes))) => return Ok(Some(bytes)),
            Some(Ok(Err(_trailers))) => {}
            Some(Err(_)) => return Err(Problem::BrokenBody),
        }
    }
}

/// Whether the body says that it is JSON; a charset or another parameter may follow.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(kind)) = headers.get(CONTENT_TYPE).map(|kind| kind.to_str()) else { return false };
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn announced_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
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
