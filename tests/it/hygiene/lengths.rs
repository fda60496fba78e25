//! Where a request ends (RFC 9112 §6): CL.TE, TE.CL, TE.TE and their kin are refused as a whole, and the connection with them.

use super::Stage;

/// A POST with these framing lines and this body; a request to smuggle comes behind it.
fn post(lines: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: a\r\nAUTH\r\n{lines}\r\n\r\n{body}")
}

async fn all_refused(statuses: &[&str], cases: &[(&str, &str)]) {
    let texts: Vec<String> = cases.iter().map(|(lines, body)| post(lines, body)).collect();
    Stage::new().await.all_refused(statuses, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn rfc9112_6_1_both_lengths_are_400_cl_te_and_te_cl() {
    all_refused(
        &["400", "501"],
        &[
            ("content-length: 5\r\ntransfer-encoding: chunked", "0\r\n\r\n"),
            ("transfer-encoding: chunked\r\ncontent-length: 5", "0\r\n\r\n"),
            ("Transfer-Encoding: chunked\r\nContent-Length: 0", "0\r\n\r\n"),
            ("TRANSFER-ENCODING: Chunked\r\ncOnTeNt-LeNgTh: 6", "0\r\n\r\nG"),
            ("content-length: 5\r\ntransfer-encoding: identity", "hello"),
            ("content-length: 5\r\ntransfer-encoding: x", "hello"),
            ("content-length: 5\r\ntransfer-encoding:", "hello"),
        ],
    )
    .await;
}

#[tokio::test]
async fn rfc9112_6_3_content_lengths_that_differ_repeat_or_are_no_number_are_400() {
    all_refused(
        &["400"],
        &[
            ("content-length: 5\r\ncontent-length: 6", "hello"),
            ("content-length: 5\r\ncontent-length: 5", "hello"),
            ("content-length: 0\r\nContent-Length: 5", "hello"),
            ("content-length: 5, 5", "hello"),
            ("content-length: 5,6", "hello"),
            ("content-length: 5 5", "hello"),
            ("content-length: 5;", "hello"),
            ("content-length: +5", "hello"),
            ("content-length: -5", "hello"),
            ("content-length: 0x5", "hello"),
            ("content-length: 5.0", "hello"),
            ("content-length: 1e1", "hello"),
            ("content-length: 5_0", "hello"),
            ("content-length: \"5\"", "hello"),
            ("content-length: \u{ff15}", "hello"),
            ("content-length:", "hello"),
            ("content-length: 99999999999999999999", "hello"),
            ("content-length: 18446744073709551621", "hello"),
            ("content-length: 4294967301\r\ncontent-length: 5", "hello"),
        ],
    )
    .await;
}

#[tokio::test]
async fn rfc9112_6_3_transfer_codings_are_chunked_once_or_nothing_te_te() {
    all_refused(
        &["400", "501"],
        &[
            ("transfer-encoding: chunked\r\ntransfer-encoding: chunked", "0\r\n\r\n"),
            ("transfer-encoding: chunked\r\ntransfer-encoding: identity", "0\r\n\r\n"),
            ("transfer-encoding: identity\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
            ("transfer-encoding: chunked, identity", "0\r\n\r\n"),
            ("transfer-encoding: identity, chunked", "0\r\n\r\n"),
            ("transfer-encoding: chunked, chunked", "0\r\n\r\n"),
            ("transfer-encoding: gzip, chunked", "0\r\n\r\n"),
            ("transfer-encoding: chunked;q=1", "0\r\n\r\n"),
            ("transfer-encoding: \"chunked\"", "0\r\n\r\n"),
            ("transfer-encoding: 'chunked'", "0\r\n\r\n"),
            ("transfer-encoding: xchunked", "0\r\n\r\n"),
            ("transfer-encoding: chunkedx", "0\r\n\r\n"),
            ("transfer-encoding: chunk", "0\r\n\r\n"),
            ("transfer-encoding: ,chunked", "0\r\n\r\n"),
            ("transfer-encoding: chunked,", "0\r\n\r\n"),
            ("transfer-encoding: \x0bchunked", "0\r\n\r\n"),
            ("transfer-encoding: \x0cchunked", "0\r\n\r\n"),
            ("transfer-encoding: chun\rked", "0\r\n\r\n"),
            ("transfer-encoding: \u{a0}chunked", "0\r\n\r\n"),
            ("transfer-encoding\t: chunked", "0\r\n\r\n"),
            ("transfer-encoding\0: chunked", "0\r\n\r\n"),
            (" transfer-encoding: chunked", "0\r\n\r\n"),
            ("x: y\ntransfer-encoding: chunked", "0\r\n\r\n"),
            ("x:\r\n transfer-encoding: chunked", "0\r\n\r\n"),
            ("transfer-encoding: cow", "0\r\n\r\n"),
            ("transfer-encoding: gzip", ""),
        ],
    )
    .await;
}

/// Names that some server takes for the two that matter are no names of theirs here, and nobody else gets to see them.
#[tokio::test]
async fn rfc9112_6_3_other_spellings_of_the_framing_headers_have_no_effect() {
    let stage = Stage::new().await;
    for name in ["content_length", "transfer_encoding", "Transfer_Encoding", "Content.Length", "transfer.encoding"] {
        let value = if name.to_ascii_lowercase().starts_with('c') { "30" } else { "chunked" };
        let message = stage.forwarded(&format!("{name}: {value}\r\n")).await;
        assert!(!message.names().contains(&name.to_ascii_lowercase()), "{message:?}");
    }
}

#[tokio::test]
async fn rfc9112_6_1_chunks_in_a_request_of_http_1_0_are_400() {
    let text = "POST / HTTP/1.0\r\nhost: a\r\nAUTH\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    Stage::new().await.all_refused(&["400"], &[text]).await;
}

/// The attack needs a front that believes in a length of 0 and a back that does not, or the other way round.
#[tokio::test]
async fn an_unexpected_body_is_forwarded_as_a_body_0_cl_and_te_0() {
    let stage = Stage::new().await;
    let inner = "GET /smuggled HTTP/1.1\r\nx: ";
    for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
        for expect in ["", "expect: y 100-continue\r\n", "expect: 100-continue,\r\n", "expect:\r\n"] {
            let sized = format!("content-length: {}\r\n\r\n{inner}", inner.len());
            let chunked = format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
            for rest in [sized, chunked] {
                let before = stage.upstream.messages().len();
                let text = format!("{method} /x HTTP/1.1\r\nhost: a\r\nAUTH\r\nconnection: close\r\n{expect}{rest}");
                let answer = stage.send(&text).await;
                assert_eq!(super::statuses(&answer).last(), Some(&"200"), "{text:?}: {answer}");
                let messages = stage.upstream.messages();
                assert_eq!(messages.len(), before + 1, "{text:?}");
                assert!(messages.last().unwrap().body.contains(inner), "{text:?}: {messages:?}");
                assert!(!messages.last().unwrap().names().contains(&"expect".to_owned()), "{text:?}");
            }
        }
    }
}

/// The gateway answers before it has read the body, and never takes the body for the next request.
#[tokio::test]
async fn the_body_of_a_refused_request_is_not_read_as_a_request_cl_0() {
    let stage = Stage::with(
        "routes:\n  - { path: \"/get/{*rest}\", methods: [GET], upstream: up }\n  - { path: \"/p\", permission: \"calls:none\", upstream: up }\n  - { path: \"/small\", max_body: 10, upstream: up }",
    )
    .await;
    let inner = "GET /get/smuggled HTTP/1.1\r\nhost: a\r\nAUTH\r\n\r\n";
    let length = stage.bytes(inner).len();
    for (path, auth, status) in [
        ("/get/x", "", "401"),
        ("/get/x", "authorization: Bearer kal_live_no\r\n", "401"),
        ("/nowhere", "AUTH\r\n", "404"),
        ("/get/x", "AUTH\r\n", "405"),
        ("/p", "AUTH\r\n", "403"),
        ("/small", "AUTH\r\n", "413"),
        ("/a/../b", "AUTH\r\n", "400"),
    ] {
        for expect in ["", "expect: 100-continue\r\n", "expect: y 100-continue\r\n"] {
            let text =
                format!("POST {path} HTTP/1.1\r\nhost: a\r\n{auth}{expect}content-length: {length}\r\n\r\n{inner}");
            let answer = stage.send(&text).await;
            assert_eq!(super::statuses(&answer), [status], "{text:?}: {answer}");
        }
    }
    assert_eq!(stage.upstream.received(), "");
}
