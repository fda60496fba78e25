//! Malformed messages beside sound ones on one connection.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::FrameGuard;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// `:method: GET`, `:scheme: http`, `:path: /`, from the static table.
const GET: &[u8] = &[0x82, 0x86, 0x84];
/// The request with which a test ends.
const LAST_STREAM: u32 = 5;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A request without a body.
fn request(stream: u8, block: &[u8]) -> Vec<u8> {
    frame(1, 0x5, stream, block)
}

/// A literal that the table keeps, with its own name.
fn kept(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0x40], string(name).as_slice(), &string(value)].concat()
}

fn string(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

/// What an h2 server makes of a client's frames, which come in pieces of `piece` bytes: the streams whose requests it accepts, with the
/// value of their field `mark`, until the last, or until the connection ends.
async fn accepted(frames: &[u8], piece: usize) -> (Vec<(u32, Option<HeaderValue>)>, Result<(), h2::Error>) {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let bytes = [PREFACE, frames].concat();
    let sends = async {
        for piece in bytes.chunks(piece) {
            // The server may have closed the connection.
            let _ = client.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        std::future::pending::<()>().await;
    };
    let serves = async {
        let mut connection = h2::server::handshake(FrameGuard::of_client(server)).await.unwrap();
        let mut seen = Vec::new();
        while let Some(next) = connection.accept().await {
            match next {
                Ok((request, mut respond)) => {
                    seen.push((respond.stream_id().as_u32(), request.headers().get("mark").cloned()));
                    let _ = respond.send_response(Response::new(()), true);
                    if respond.stream_id().as_u32() == LAST_STREAM {
                        return (seen, Ok(()));
                    }
                }
                Err(error) => return (seen, Err(error)),
            }
        }
        (seen, Ok(()))
    };
    let either = async {
        tokio::select! {
            seen = serves => seen,
            () = sends => unreachable!(),
        }
    };
    tokio::time::timeout(Duration::from_secs(60), either).await.unwrap()
}

/// Expects that `frames` cost stream 1 only, and that stream 5 gets from the table what stream 1 added to it.
async fn costs_one_stream(case: &str, frames: &[u8]) {
    // The newest entry of the table: `mark: 7`.
    let sibling = request(5, &[GET, &[0xbe]].concat());
    for piece in [1, 7, 1 << 20] {
        let (seen, ended) = accepted(&[frames, &sibling].concat(), piece).await;
        assert_eq!(seen, [(5, Some(HeaderValue::from_static("7")))], "{case}, in pieces of {piece}: {ended:?}");
        assert!(ended.is_ok(), "{case}: {ended:?}");
    }
}

#[tokio::test]
async fn malformed_fields_cost_one_stream() {
    let mark = kept(b"mark", b"7");
    let field = |name: &[u8], value: &[u8]| [GET, &kept(name, value), &mark].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a line feed in a value", field(b"error", b"no\nway")),
        ("a zero in a value", field(b"error", b"\0")),
        ("a name with a capital letter", field(b"Error", b"1")),
        ("a name with a blank", field(b"an error", b"1")),
        ("a name of nothing", field(b"", b"1")),
        ("an unknown pseudo-header", field(b":voice", b"1")),
        ("a second path", field(b":path", b"/2")),
        ("a status of letters", field(b":status", b"abc")),
        ("a method with a blank", field(b":method", b"GET IT")),
        ("a path that is not UTF-8", field(b":path", b"/\xff")),
        ("a value behind a name of the static table", [GET, b"\x57\x03a\nb", &mark].concat()),
        ("a literal that no table keeps", [GET, b"\x00\x01a\x01\n", &mark].concat()),
        ("a value in Huffman code", [GET, b"\x40\x01a\x84\xff\xff\xff\xf3", &mark].concat()),
    ];
    for (case, block) in cases {
        costs_one_stream(case, &request(1, &block)).await;
    }
}

#[tokio::test]
async fn a_malformed_block_is_found_in_every_form_of_frames() {
    let block = [GET, &kept(b"error", b"\n"), &kept(b"mark", b"7")].concat();
    let (first, second) = block.split_at(7);
    let continued = [frame(1, 0x1, 1, first), frame(9, 0, 1, b""), frame(9, 0x4, 1, second)].concat();
    costs_one_stream("continued", &continued).await;
    let padded = [&[3, 0, 0, 0, 0, 9], block.as_slice(), &[0; 3]].concat();
    costs_one_stream("padded, with a priority", &frame(1, 0x2d, 1, &padded)).await;
    let sound = [GET, &kept(b"mark", b"7")].concat();
    costs_one_stream("depends on itself", &frame(1, 0x25, 1, &[&[0, 0, 0, 1, 9], sound.as_slice()].concat())).await;
    // Stream 3 names an entry that h2 never got as it was sent.
    let damaged = request(1, &[GET, &kept(b"error", b"\n"), &kept(b"mark", b"7")].concat());
    let (seen, ended) =
        accepted(&[damaged, request(3, &[GET, &[0xbf]].concat()), request(5, &[GET, &[0xbe]].concat())].concat(), 5)
            .await;
    assert_eq!(seen, [(5, Some(HeaderValue::from_static("7")))], "{ended:?}");
}

#[tokio::test]
async fn faults_of_other_frames_cost_one_stream() {
    let open = frame(1, 0x4, 1, &[GET, &kept(b"mark", b"7")].concat());
    let sibling = request(5, &[GET, &[0xbe]].concat());
    for (case, fault) in
        [("an increment of nothing", frame(8, 0, 1, &[0; 4])), ("a priority of 4 bytes", frame(2, 0, 1, &[0; 4]))]
    {
        for piece in [1, 1 << 20] {
            let (seen, ended) = accepted(&[open.clone(), fault.clone(), sibling.clone()].concat(), piece).await;
            assert!(ended.is_ok(), "{case}: {ended:?}");
            assert_eq!(seen.last().map(|seen| seen.0), Some(5), "{case}");
        }
    }
}

#[tokio::test]
async fn errors_of_the_connection_still_end_it() {
    let cases = [
        ("an index that no table has", request(1, &[0xff, 0xff, 0x03])),
        ("a table larger than announced", request(1, &[0x3f, 0xff, 0xff, 0x03])),
        ("a string that ends too soon", request(1, b"\x40\x01a\x09b")),
        ("a continuation of nothing", frame(9, 0x4, 1, GET)),
        ("an increment of nothing on the connection", frame(8, 0, 0, &[0; 4])),
        ("frames amid a block", [frame(1, 0x1, 1, GET), frame(0, 0, 1, b"x")].concat()),
        ("padding longer than its frame", frame(1, 0xd, 1, &[200, 0x82])),
        ("a frame larger than announced", frame(2, 0, 1, &[0; 20_000])),
    ];
    for (case, frames) in cases {
        for piece in [1, 1 << 20] {
            let (seen, ended) = accepted(&[frames.clone(), request(5, GET)].concat(), piece).await;
            assert!(ended.is_err(), "{case}");
            assert_eq!(seen, [], "{case}");
        }
    }
}

/// Sends requests by h2 and returns the fields that h2's server gets, through the guard.
async fn carried(requests: &[HeaderMap]) -> Vec<HeaderMap> {
    let (client, server) = tokio::io::duplex(1 << 10);
    let serves = async {
        let mut connection = h2::server::Builder::new()
            .max_header_list_size(1 << 20)
            .handshake::<_, Bytes>(FrameGuard::of_client(server))
            .await
            .unwrap();
        let mut seen = Vec::new();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            seen.push(request.headers().clone());
            let _ = respond.send_response(Response::new(()), true);
        }
        seen
    };
    let asks = async {
        let (mut send, connection) = h2::client::handshake(client).await.unwrap();
        let running = tokio::spawn(connection);
        for headers in requests {
            let mut request = Request::new(());
            *request.uri_mut() = http::Uri::from_static("http://a/");
            request.headers_mut().clone_from(headers);
            send = send.ready().await.unwrap();
            let (answer, _) = send.send_request(request, true).unwrap();
            answer.await.unwrap();
        }
        drop(send);
        let _ = running.await;
    };
    tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(serves, asks).0 }).await.unwrap()
}

fn any_headers() -> impl Strategy<Value = HeaderMap> {
    let field = (
        "[a-z][a-z0-9-]{0,20}",
        proptest::collection::vec(prop_oneof![0x20..0x7f_u8, 0x80..=0xff_u8, Just(b'\t')], 0..200),
    );
    proptest::collection::vec(field, 0..40).prop_map(|fields| {
        let hop_by_hop = ["connection", "transfer-encoding", "upgrade", "keep-alive", "te", "content-length"];
        let fields = fields.into_iter().filter(|(name, _)| !hop_by_hop.contains(&name.as_str()));
        fields
            .map(|(name, value)| (HeaderName::try_from(name).unwrap(), HeaderValue::from_bytes(&value).unwrap()))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Repeated fields make h2 refer to the table; 40 fields of 200 bytes make it evict.
    #[test]
    fn sound_messages_pass_as_they_are(mut requests in proptest::collection::vec(any_headers(), 1..6)) {
        requests.extend(requests.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        prop_assert_eq!(runtime.block_on(carried(&requests)), requests);
    }
}
