//! Uploads and downloads of any size, in constant memory.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use aws_lc_rs::digest;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;

use super::answer::{Answer, json_answer};
use super::intake::next_bytes;
use super::problem::{FieldErrors, Problem};
use crate::hash::hex;

/// Bytes of a download: 4 GiB.
const MAX_DOWNLOAD: u64 = 4 * 1024 * 1024 * 1024;

/// What downloads repeat: the bytes 0 to 255 in turn, so that the byte at offset n is n modulo 256.
static PATTERN: LazyLock<Bytes> = LazyLock::new(|| (0..=255).cycle().take(64 * 1024).collect());

/// Takes an upload of any size and answers with its length and digest; nothing is kept.
///
/// # Errors
/// When the body stalls or breaks off.
pub(super) async fn receive(mut body: Incoming) -> Result<Answer, Problem> {
    let mut digest = digest::Context::new(&digest::SHA256);
    let mut length: u64 = 0;
    while let Some(bytes) = next_bytes(&mut body).await? {
        length += bytes.len() as u64;
        digest.update(&bytes);
    }
    let sha256 = hex(digest.finish().as_ref());
    Ok(json_answer(StatusCode::OK, &json!({ "bytes": length, "sha256": sha256 })))
}

/// Answers with as many bytes as the path asks for.
///
/// # Errors
/// When it asks for no number, or for more than 4 GiB.
pub(super) fn send(length: &str) -> Result<Answer, Problem> {
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Problem::NoSuchPath);
    }
    let left = length.parse().ok().filter(|&length| length <= MAX_DOWNLOAD).ok_or_else(|| {
        Problem::Invalid(FieldErrors::of("bytes", format!("The bytes must not be more than {MAX_DOWNLOAD}.")))
    })?;
    let mut answer = Answer::new(Recording { left }.boxed_unsync());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(answer)
}

/// The body of a download: slices of one pattern.
struct Recording {
    left: u64,
}

impl Body for Recording {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length = usize::try_from(self.left).map_or(PATTERN.len(), |left| left.min(PATTERN.len()));
        self.left -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(PATTERN.slice(..length)))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
