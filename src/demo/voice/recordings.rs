//! Uploads and downloads of any size, in constant memory.

use std::iter;
use std::sync::LazyLock;

use aws_lc_rs::digest;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::stream;
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use hyper::body::Incoming;
use serde_json::json;

use super::request_body::next_bytes;
use super::response::{DemoError, DemoResponse, FieldErrors, json_response, stream_response};

/// 4 GiB.
const MAX_DOWNLOAD_BYTES: u64 = 1 << 32;
const CHUNK_BYTES: u64 = 64 * 1024;

/// Downloads repeat the bytes 0 to 255: the byte at offset n is n modulo 256.
static CHUNK: LazyLock<Bytes> = LazyLock::new(|| (0..=255).cycle().take(CHUNK_BYTES as usize).collect());

/// Reads an upload of any size and responds with its length and digest. Nothing is stored.
pub(super) async fn receive(mut body: Incoming) -> Result<DemoResponse, DemoError> {
    let (mut digest, mut length) = (digest::Context::new(&digest::SHA256), 0);
    while let Some(bytes) = next_bytes(&mut body).await? {
        length += bytes.len();
        digest.update(&bytes);
    }
    let sha256 = HEXLOWER.encode(digest.finish().as_ref());
    Ok(json_response(StatusCode::OK, &json!({ "bytes": length, "sha256": sha256 })))
}

/// Responds with as many bytes as the path asks for.
pub(super) fn send(length: &str) -> Result<DemoResponse, DemoError> {
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return Err(DemoError::NoSuchPath);
    }
    let length = length.parse::<u64>().ok().filter(|&length| length <= MAX_DOWNLOAD_BYTES).ok_or_else(|| {
        let message = format!("The bytes must not be more than {MAX_DOWNLOAD_BYTES}.");
        DemoError::Invalid(FieldErrors::from([("bytes", vec![message])]))
    })?;
    let rest = CHUNK.slice(..(length % CHUNK_BYTES) as usize);
    let chunks = iter::repeat_n(CHUNK.clone(), (length / CHUNK_BYTES) as usize).chain([rest]);
    let mut response = stream_response("application/octet-stream", stream::iter(chunks));
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    Ok(response)
}
