//! Uploads and downloads of recordings.

use super::*;

#[tokio::test]
async fn uploads_stream_and_are_digested() {
    let upstream = Upstream::start().await;
    let chunk = Bytes::from(vec![7; 1 << 20]);
    let mut expected = digest::Context::new(&digest::SHA256);
    (0..32).for_each(|_| expected.update(&chunk));
    let expected: String = expected.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let chunks = stream::iter(std::iter::repeat_n(chunk, 32).map(Ok::<_, std::io::Error>));
    let request = upstream.request(Method::POST, "/api/v1/recordings").body(reqwest::Body::wrap_stream(chunks));
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(answer, json!({ "bytes": 32 << 20, "sha256": expected }));
}

#[tokio::test]
async fn downloads_have_exactly_the_requested_size() {
    let upstream = Upstream::start().await;
    for length in [0_usize, 1, 65_536, 1_000_003] {
        let answer = upstream.get(&format!("/api/v1/recordings/{length}")).await;
        assert_eq!(answer.content_length(), Some(length as u64));
        let bytes = answer.bytes().await.unwrap();
        assert_eq!(bytes.len(), length);
        assert!(bytes.iter().zip((0..=255_u8).cycle()).all(|(byte, expected)| *byte == expected));
    }
    let head = upstream.request(Method::HEAD, "/api/v1/recordings/4294967296").send().await.unwrap();
    assert_eq!(head.headers()["content-length"], "4294967296");
    for length in ["4294967297", "99999999999999999999999"] {
        refused(upstream.get(&format!("/api/v1/recordings/{length}")).await, StatusCode::UNPROCESSABLE_ENTITY).await;
    }
    refused(upstream.get("/api/v1/recordings/-1").await, StatusCode::NOT_FOUND).await;
}
