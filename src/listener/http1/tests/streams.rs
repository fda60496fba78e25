//! Byte streams as clients might send them: good messages, and the same bent in the places where parsers differ.

use proptest::prelude::*;
use proptest::sample::select;

/// Heads that two parsers could read in two ways, or that no parser may accept. None names a connection option.
pub(super) const AMBIGUOUS_HEADS: &[&str] = &[
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked;q=1\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \"chunked\"\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\r\n chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chun\rked\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0cchunked\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding\t: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer\0-encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\n\ttransfer-encoding: chunked\r\n\r\n",
    "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5, 5\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5 5\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5;\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -5\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1e3\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551621\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ncontent-length: 5\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nx: y\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a, b\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n",
    "GET / HTTP/1.1\r\nhost:\r\n\r\n",
    "GET / HTTP/1.1\nhost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n",
    "GET / HTTP/1.1\rhost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\nx: y\r\r\n\r\n",
    "GET / HTTP/1.1\r\n\nhost: a\r\n\r\n",
    "GET / HTTP/1.1 \r\nhost: a\r\n\r\n",
    "GET /\tHTTP/1.1\r\nhost: a\r\n\r\n",
    "GET / http/1.1\r\nhost: a\r\n\r\n",
    "GET / HTTP/1.1\r\n host: a\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\n: y\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\nx\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\nx y: z\r\n\r\n",
    "GET /\u{e9} HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET\r\nhost: a\r\n\r\n",
    "GET /\r\nhost: a\r\n\r\n",
    "\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
    "\r\n GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    "\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
    "\rGET / HTTP/1.1\r\nhost: a\r\n\r\n",
    " GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\n",
];

/// Chunked bodies that two parsers could end at two places.
pub(super) const AMBIGUOUS_BODIES: &[&str] = &[
    "5\nhello\r\n0\r\n\r\n",
    "5\rhello\r\n0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\r\nhello\r0\r\n\r\n",
    "5\r\nhelloXX0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "5;x\nhello\r\n0\r\n\r\n",
    "5;x\rhello\r\n0\r\n\r\n",
    "5;\0\r\nhello\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "-5\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "5_0\r\nhello\r\n0\r\n\r\n",
    " 5\r\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "5\t;x\r\nhello\r\n0\r\n\r\n",
    "5,\r\nhello\r\n0\r\n\r\n",
    ";x\r\nhello\r\n0\r\n\r\n",
    "\r\n0\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "0000000000000005\r\nhello\r\n0\r\n\r\n",
    "0\n\r\n",
    "0\r\n\n",
    "0\r\n x: y\r\n\r\n",
    "0\r\nx: y\n\r\n",
    "0\r\nx: y\r\r\n\r\n",
    "0\r\nx: \0\r\n\r\n",
    "0\r\n: y\r\n\r\n",
    "0\r\nx\r\n\r\n",
    "0\r\nx : y\r\n\r\n",
    "0\r\nx: y\r\n z\r\n\r\n",
    "0\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
];

/// Pieces that bend a message where they are put.
const FRAGMENTS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\t",
    b" ",
    b":",
    b";",
    b",",
    b"x",
    b"\x80",
    b"\x0b",
    b"0",
    b"5",
    b"\r\n\r\n",
    b"\r\n ",
    b"content-length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"transfer-encoding: chunked\r\n",
    b"host: b\r\n",
    b"x: \xe9\ty\r\n",
    b"0\r\n\r\n",
    b"chunked",
    b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    b"POST",
    b"HTTP/1.0",
    b"http://c",
];

/// Header lines that concern nobody's framing.
const FIELDS: &[&[u8]] =
    &[b"x: y\r\n", b"Accept:*/*\r\n", b"x:\t\r\n", b"cookie: a=\xc3\xa9\r\n", b"expect: 100-continue\r\n"];

/// Where a stream is cut, as shares of its length.
#[derive(Debug, Clone)]
pub(super) struct Cuts(Vec<prop::sample::Index>);

impl Cuts {
    pub(super) fn apply<'a>(&self, bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let mut places: Vec<usize> = self.0.iter().map(|index| index.index(bytes.len() + 1)).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();
        places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
    }
}

pub(super) fn cuts() -> impl Strategy<Value = Cuts> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..12).prop_map(Cuts)
}

/// Up to four messages, some of them bent.
pub(super) fn stream() -> impl Strategy<Value = Vec<u8>> {
    let bends = prop_oneof![2 => Just(0_usize), 2 => Just(1), 1 => 2..4_usize].prop_flat_map(|count| {
        prop::collection::vec((any::<prop::sample::Index>(), 0..3_usize, select(FRAGMENTS)), count)
    });
    (prop::collection::vec(message(), 1..5), bends).prop_map(|(messages, bends)| {
        let mut bytes = messages.concat();
        for (place, dropped, fragment) in bends {
            let at = place.index(bytes.len() + 1);
            let end = (at + dropped).min(bytes.len());
            bytes.splice(at..end, fragment.iter().copied());
        }
        bytes
    })
}

/// One good message.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let line = (
        select(&["GET", "POST", "PUT", "OPTIONS", "x-own", "CONNECT"][..]),
        select(&["/", "/a/b?c=d%20", "/{}|^\\", "http://h.example:80/p", "https://h", "/*"][..]),
        select(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"][..]),
    );
    let fields = prop::collection::vec(select(FIELDS), 0..4);
    (line, fields, body(), any::<bool>()).prop_map(|((method, target, version), fields, body, host_first)| {
        let target = if method == "CONNECT" { "h.example:80" } else { target };
        let (framing, body) = match body {
            // Chunks are not for HTTP/1.0.
            (_, true) if version == "HTTP/1.0" => (String::new(), Vec::new()),
            (body, true) => ("transfer-encoding: chunked\r\n".to_owned(), body),
            (body, false) if body.is_empty() => (String::new(), body),
            (body, false) => (format!("Content-Length: {}\r\n", body.len()), body),
        };
        let host = b"host: h.example\r\n";
        let (first, last) = if host_first { (&host[..], &b""[..]) } else { (&b""[..], &host[..]) };
        let head = format!("{method} {target} {version}\r\n");
        [head.as_bytes(), first, &fields.concat(), framing.as_bytes(), last, b"\r\n", &body].concat()
    })
}

/// A body, and whether it is chunked.
fn body() -> impl Strategy<Value = (Vec<u8>, bool)> {
    let data = || {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 1..40),
            // What would be a request, were it not within a body.
            Just(b"GET /inner HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
            Just(b"0\r\n\r\n".to_vec()),
        ]
    };
    let chunk = (data(), select(&["", ";a", ";a=\"b\"", "; a = b"][..]), any::<bool>());
    let trailers = select(&["", "x-t: 1\r\n", "x-t: 1\r\ncontent-length: 7\r\n"][..]);
    let chunked = (prop::collection::vec(chunk, 0..4), trailers).prop_map(|(chunks, trailers)| {
        let mut bytes = Vec::new();
        for (data, extension, upper) in chunks {
            let size = if upper { format!("{:04X}", data.len()) } else { format!("{:x}", data.len()) };
            bytes.extend([size.as_bytes(), extension.as_bytes(), b"\r\n", &data, b"\r\n"].concat());
        }
        bytes.extend(format!("0\r\n{trailers}\r\n").into_bytes());
        (bytes, true)
    });
    prop_oneof![
        2 => Just((Vec::new(), false)),
        1 => data().prop_map(|data| (data, false)),
        2 => chunked,
    ]
}
