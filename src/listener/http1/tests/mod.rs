//! What holds for every byte stream that a client can send, tried on many of them: the reader's verdict does not depend on how the
//! bytes are cut, nothing panics, and whatever passes has one reading only, hyper's among them.

mod connection;
mod readers;
mod streams;

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use bytes::BytesMut;

use super::super::head::{HeadLimits, RequestFault};
use super::part::{Part, ReadFault};
use super::reader::Reader;

use readers::{Length, Quirks, read_all};
use streams::{Cuts, cuts, stream};

/// Small, so that streams reach them.
const LIMITS: HeadLimits = HeadLimits { bytes: 400, lines: 12, target: 200 };

/// How the judgement of a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// So many bytes are held: the beginning of a head.
    Open(usize),
    Refused(RequestFault),
    Broken,
}

/// Shows a stream to the reader, piece by piece. Returns what passed, but for empty lines between messages.
fn judge(pieces: &[&[u8]], limits: HeadLimits) -> (Vec<u8>, End) {
    let mut reader = Reader::new(limits, false);
    let (mut passed, mut held) = (Vec::new(), BytesMut::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            let (before, is_between) = (held.clone(), !reader.is_within_message());
            let part = reader.next(&mut held);
            let taken = &before[..before.len() - held.len()];
            match part {
                Ok(Some(part)) => {
                    let is_line_left_out = is_between && taken.starts_with(b"\r\n");
                    passed.extend_from_slice(if is_line_left_out { &taken[2..] } else { taken });
                    if let Part::Data(data) = part {
                        assert!(taken.ends_with(&data), "{taken:?} {data:?}");
                    }
                }
                Ok(None) => {
                    passed.extend_from_slice(if is_between { b"" } else { taken });
                    break;
                }
                Err(ReadFault::Request(fault)) => return (passed, End::Refused(fault)),
                Err(ReadFault::Body) => {
                    passed.extend_from_slice(taken);
                    return (passed, End::Broken);
                }
            }
        }
    }
    (passed, End::Open(held.len()))
}

/// The same, but for the reason of a refusal: an overlong or garbled head may be refused before its other faults are there.
fn outcome(pieces: &[&[u8]]) -> (Vec<u8>, End) {
    let (passed, end) = judge(pieces, LIMITS);
    let end = if let End::Refused(_) = end { End::Refused(RequestFault::TooSlow) } else { end };
    (passed, end)
}

fn many(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}

#[test]
fn the_verdict_does_not_depend_on_how_bytes_are_cut() {
    let (passing, refused) = (Cell::new(0), Cell::new(0));
    many(4_000)
        .run(&(stream(), cuts()), |(bytes, cuts)| {
            let whole = outcome(&[&bytes]);
            prop_assert_eq!(&outcome(&Cuts::apply(&cuts, &bytes)), &whole);
            passing.set(passing.get() + usize::from(!whole.0.is_empty()));
            refused.set(refused.get() + usize::from(!matches!(whole.1, End::Open(_))));
            Ok(())
        })
        .unwrap();
    // A generator whose streams all end alike would prove nothing.
    assert!(passing.get() > 1_000 && refused.get() > 1_000, "{} pass, {} are refused", passing.get(), refused.get());
}

#[test]
fn the_verdict_is_the_same_byte_by_byte() {
    many(1_000)
        .run(&stream(), |bytes| {
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(outcome(&single), outcome(&[&bytes]));
            Ok(())
        })
        .unwrap();
}

#[test]
fn random_bytes_never_panic_and_hardly_ever_pass() {
    let anything = prop::collection::vec(any::<u8>(), 0..600);
    many(2_000)
        .run(&(anything, cuts()), |(bytes, cuts)| {
            let (passed, _) = judge(&Cuts::apply(&cuts, &bytes), LIMITS);
            prop_assert!(passed.is_empty(), "{:?}", passed);
            Ok(())
        })
        .unwrap();
}

#[test]
fn accepted_bytes_have_one_reading_for_every_lenient_reader() {
    let messages = Cell::new(0);
    many(4_000)
        .run(&stream(), |bytes| {
            let (passed, _) = judge(&[&bytes], LIMITS);
            let strict = read_all(&passed, Quirks::NONE);
            messages.set(messages.get() + strict.len());
            for quirks in Quirks::all() {
                prop_assert_eq!(&read_all(&passed, quirks), &strict, "{:?}", quirks);
            }
            Ok(())
        })
        .unwrap();
    assert!(messages.get() > 4_000, "{} messages", messages.get());
}

#[test]
fn the_body_of_a_head_that_passes_is_as_long_as_it_says() {
    for (head, length) in [
        ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", Length::Known(0)),
        ("POST / HTTP/1.1\r\nHOST:a\r\nContent-length:\t 12 \t\r\n\r\n", Length::Known(12)),
        ("POST / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding:  ChUnKeD\t\r\n\r\n", Length::Chunked),
        ("DELETE / HTTP/1.0\r\ncontent-length: 000000000000000007\r\n\r\n", Length::Known(7)),
        ("OPTIONS * HTTP/1.1\r\nhost: [::1]:80\r\nx: \u{e9}\r\n\r\n", Length::Known(0)),
        ("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\ncontent-length: 3\r\n\r\n", Length::Known(3)),
    ] {
        let (passed, end) = judge(&[head.as_bytes()], LIMITS);
        assert_eq!((passed.as_slice(), end), (head.as_bytes(), End::Open(0)), "{head:?}");
        let read = read_all(head.as_bytes(), Quirks::NONE);
        assert_eq!(read.iter().map(|message| message.length).collect::<Vec<_>>(), [length], "{head:?}");
    }
}

#[test]
fn ambiguous_bytes_are_refused_however_they_are_split() {
    for head in streams::AMBIGUOUS_HEADS {
        let bytes = format!("{head}0\r\n\r\nGET /next HTTP/1.1\r\nhost: a\r\n\r\n").into_bytes();
        for cut in 0..=head.len() {
            let (passed, end) = judge(&[&bytes[..cut], &bytes[cut..]], LIMITS);
            assert!(passed.is_empty() && matches!(end, End::Refused(_)), "{head:?} cut at {cut}: {passed:?} {end:?}");
        }
    }
    let opening = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    for body in streams::AMBIGUOUS_BODIES {
        let bytes = [opening, body.as_bytes(), b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n"].concat();
        for cut in opening.len()..=opening.len() + body.len() {
            let (passed, end) = judge(&[&bytes[..cut], &bytes[cut..]], LIMITS);
            let broken = end == End::Broken && passed.len() <= opening.len() + body.len();
            assert!(broken, "{body:?} cut at {cut}: {passed:?} {end:?}");
        }
    }
}

#[test]
fn a_head_of_the_maximum_size_passes_however_it_is_split() {
    let frame = "GET / HTTP/1.1\r\nhost: a\r\nx: \r\n".len();
    for (size, passes) in [(LIMITS.bytes - 1, true), (LIMITS.bytes, true), (LIMITS.bytes + 1, false)] {
        let head = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(size - frame)).into_bytes();
        for cut in 0..head.len() {
            let (passed, end) = judge(&[&head[..cut], &head[cut..]], LIMITS);
            assert_eq!(passed.len() == head.len(), passes, "{size} cut at {cut}: {end:?}");
        }
    }
}

#[test]
fn after_a_refusal_nothing_passes() {
    let (mut reader, mut held) = (Reader::new(LIMITS, false), BytesMut::from(&b"\x81\x05"[..]));
    assert!(matches!(reader.next(&mut held), Err(ReadFault::Request(_))));
    held = BytesMut::from(&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..]);
    assert!(matches!(reader.next(&mut held), Err(ReadFault::Request(_))));
    assert!(reader.is_within_message());
}

#[test]
fn trailers_are_read_as_headers_and_no_more_of_them_than_headers() {
    let opening = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n";
    for (lines, passes) in [(LIMITS.lines, true), (LIMITS.lines + 1, false)] {
        let bytes = format!("{opening}{}\r\n", "X-Sum: \t1 2\t\r\n".repeat(lines));
        let (mut reader, mut held) = (Reader::new(LIMITS, false), BytesMut::from(bytes.as_bytes()));
        assert!(matches!(reader.next(&mut held), Ok(Some(Part::Head(..)))));
        match reader.next(&mut held) {
            Ok(Some(Part::End(Some(trailers)))) if passes => {
                assert!(trailers.get_all("x-sum").iter().all(|value| value == "1 2"));
                assert_eq!(trailers.len(), lines);
            }
            Err(ReadFault::Body) if !passes => {}
            other => panic!("{lines}: {other:?}"),
        }
    }
}

#[test]
fn one_empty_line_before_a_request_is_skipped() {
    let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi";
    let bytes = format!("\r\n{get}{post}\r\n{get}\r\n").into_bytes();
    let expected = format!("{get}{post}{get}").into_bytes();
    for cut in 0..=bytes.len() {
        assert_eq!(judge(&[&bytes[..cut], &bytes[cut..]], LIMITS), (expected.clone(), End::Open(0)), "cut at {cut}");
    }
    // What looks like one within a body is the body's.
    let bytes = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n\r\n".as_slice();
    assert_eq!(judge(&[bytes], LIMITS), (bytes.to_vec(), End::Open(0)));
}

#[test]
fn a_head_that_comes_byte_by_byte_is_searched_once() {
    let limits = HeadLimits { bytes: 1 << 20, lines: 100, target: 65_000 };
    for head in [
        format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "t".repeat(60_000)),
        format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "v".repeat(500_000)),
    ] {
        let (mut reader, mut held) = (Reader::new(limits, false), BytesMut::new());
        let started = std::time::Instant::now();
        let (last, bytes) = head.as_bytes().split_last().unwrap();
        for byte in bytes {
            held.extend_from_slice(&[*byte]);
            assert!(matches!(reader.next(&mut held), Ok(None)));
        }
        held.extend_from_slice(&[*last]);
        assert!(matches!(reader.next(&mut held), Ok(Some(Part::Head(..)))));
        // Searched anew each time it takes minutes.
        assert!(started.elapsed() < std::time::Duration::from_secs(60), "{:?}", started.elapsed());
    }
}
