//! The PROXY protocol, versions 1 and 2: before anything else, a proxy on TCP tells whose connection it passes on
//! (proxy-protocol.txt of haproxy).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What version 1 begins with.
const PROXY: &[u8] = b"PROXY ";
/// Bytes of a line of version 1, at the most (section 2.1).
const MAX_LINE_BYTES: usize = 107;
/// Bytes that may follow the fixed part of version 2. Addresses take up to 216; the rest is for what proxies add, of which a
/// client's certificate is the largest.
const MAX_REST_BYTES: usize = 16 << 10;

/// Why a connection has no good header.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    /// It was closed before a byte came, as by a health check that only connects.
    #[error("closed at once")]
    Closed,
    /// What came is no header.
    #[error("does not begin with a PROXY protocol header")]
    Absent,
    /// The header breaks its rules.
    #[error("malformed PROXY protocol header: {0}")]
    Malformed(&'static str),
    /// The connection broke off within it, or it took too long.
    #[error("no whole PROXY protocol header")]
    Io(#[from] io::Error),
}

/// Reads a header, and nothing behind it. The client's address, or `None` when the proxy speaks for itself, as in a health
/// check, or does not tell an address of TCP: then the connection's own counts.
///
/// # Errors
/// [`ProxyError`]. The connection is of no use then.
pub(super) async fn read(socket: &mut TcpStream) -> Result<Option<SocketAddr>, ProxyError> {
    let mut start = [0; SIGNATURE.len()];
    start[0] = socket.read_u8().await.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ProxyError::Closed,
        _ => error.into(),
    })?;
    // No header is shorter. Who speaks first and sends less waits for the deadline.
    if start[0] != SIGNATURE[0] && start[0] != PROXY[0] {
        return Err(ProxyError::Absent);
    }
    socket.read_exact(&mut start[1..]).await?;
    if &start == SIGNATURE {
        read_binary(socket).await
    } else if start.starts_with(PROXY) {
        read_line(socket, &start).await
    } else {
        Err(ProxyError::Absent)
    }
}

/// Version 1: the rest of a line whose length nobody tells. It is looked at before it is taken.
async fn read_line(socket: &mut TcpStream, start: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    let mut line = [0; MAX_LINE_BYTES];
    line[..start.len()].copy_from_slice(start);
    let mut filled = start.len();
    while !line[..filled].ends_with(b"\n") {
        if filled == MAX_LINE_BYTES {
            return Err(ProxyError::Malformed("the line is too long"));
        }
        let seen = socket.peek(&mut line[filled..]).await?;
        if seen == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let end = line[filled..filled + seen].iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(seen, |end| end + 1);
        socket.read_exact(&mut line[filled..filled + taken]).await?;
        filled += taken;
    }
    parse_line(&line[..filled])
}

/// Version 2: a fixed part that tells the length of the rest.
async fn read_binary(socket: &mut TcpStream) -> Result<Option<SocketAddr>, ProxyError> {
    let mut fixed = [0; 4];
    socket.read_exact(&mut fixed).await?;
    let mut left = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if left > MAX_REST_BYTES {
        return Err(ProxyError::Malformed("it is too long"));
    }
    let mut addresses = [0; 36];
    let length = left.min(addresses.len());
    socket.read_exact(&mut addresses[..length]).await?;
    let address = parse_binary(fixed[0], fixed[1], &addresses[..length])?;
    left -= length;
    let mut unread = [0; 512];
    while left > 0 {
        let piece = left.min(unread.len());
        left -= socket.read_exact(&mut unread[..piece]).await?;
    }
    Ok(address)
}

fn parse_line(line: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    let text = line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok());
    let text = text.ok_or(ProxyError::Malformed("the line does not end well"))?;
    let mut words = text.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        // Whatever follows is to be ignored.
        return Ok(None);
    }
    let words: Vec<&str> = words.collect();
    let [source, destination, source_port, destination_port] = words[..] else {
        return Err(ProxyError::Malformed("the line has not six words"));
    };
    let address = |text: &str| match family {
        Some("TCP4") => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        Some("TCP6") => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => None,
    };
    let port = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse::<u16>().ok().filter(|_| digits)
    };
    let ends = (address(source), address(destination), port(source_port), port(destination_port));
    let (Some(source), Some(_), Some(port), Some(_)) = ends else {
        return Err(ProxyError::Malformed("an address or a port can't be read"));
    };
    Ok(Some(SocketAddr::new(source, port)))
}

fn parse_binary(command: u8, family: u8, addresses: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyError::Malformed("another version or command")),
    };
    if family >> 4 > 3 || family & 0xf > 2 {
        return Err(ProxyError::Malformed("an unknown family or protocol"));
    }
    let ends = match (is_local, family) {
        (false, 0x11) => addresses
            .first_chunk()
            .map(|[a, b, c, d, _, _, _, _, port @ .., _, _]: &[u8; 12]| (IpAddr::from([*a, *b, *c, *d]), *port)),
        (false, 0x21) => addresses.first_chunk().map(|all: &[u8; 36]| {
            let mut source = [0; 16];
            source.copy_from_slice(&all[..16]);
            (IpAddr::from(source), [all[32], all[33]])
        }),
        // Not a connection of TCP, or none of a client's.
        _ => return Ok(None),
    };
    let (ip, port) = ends.ok_or(ProxyError::Malformed("the addresses are cut off"))?;
    Ok(Some(SocketAddr::new(ip, u16::from_be_bytes(port))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn line(text: &str) -> Result<Option<String>, String> {
        parse_line(text.as_bytes())
            .map(|address| address.map(|address| address.to_string()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_are_read_from_lines() {
        assert_eq!(line("PROXY TCP4 192.0.2.7 10.0.0.1 5000 443\r\n"), Ok(Some("192.0.2.7:5000".into())));
        assert_eq!(line("PROXY TCP6 2001:db8::7 ::1 65535 0\r\n"), Ok(Some("[2001:db8::7]:65535".into())));
        assert_eq!(line("PROXY UNKNOWN\r\n"), Ok(None));
        assert_eq!(line("PROXY UNKNOWN ff::1 whatever 1 2 3\r\n"), Ok(None));
    }

    #[test]
    fn other_lines_are_refused() {
        for text in [
            "PROXY TCP4 192.0.2.7 10.0.0.1 5000 443\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 5000 443",
            "PROXY TCP4  192.0.2.7 10.0.0.1 5000 443\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 5000 443 \r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 5000\r\n",
            "PROXY TCP4 192.0.2.07 10.0.0.1 5000 443\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 05000 443\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 +500 443\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 65536 443\r\n",
            "PROXY TCP4 192.0.2.7 ::1 5000 443\r\n",
            "PROXY TCP4 ::1 ::1 5000 443\r\n",
            "PROXY TCP6 192.0.2.7 10.0.0.1 5000 443\r\n",
            "PROXY tcp4 192.0.2.7 10.0.0.1 5000 443\r\n",
            "PROXY UDP4 192.0.2.7 10.0.0.1 5000 443\r\n",
            "PROXY unknown\r\n",
            "PROXY \r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 5000 443\r\r\n",
        ] {
            assert!(line(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn binary_headers_tell_addresses() {
        let four = [192, 0, 2, 7, 10, 0, 0, 1, 0x13, 0x88, 1, 187];
        assert_eq!(parse_binary(0x21, 0x11, &four).unwrap(), Some("192.0.2.7:5000".parse().unwrap()));
        let mut six = [0; 36];
        (six[0], six[15], six[32], six[33]) = (0xfd, 7, 0x13, 0x88);
        assert_eq!(parse_binary(0x21, 0x21, &six).unwrap(), Some("[fd00::7]:5000".parse().unwrap()));
        // Local; unspecified; UDP; Unix.
        for (command, family) in [(0x20, 0x11), (0x20, 0), (0x21, 0), (0x21, 0x12), (0x21, 0x10), (0x21, 0x31)] {
            assert_eq!(parse_binary(command, family, &six).unwrap(), None, "{command:x} {family:x}");
        }
        for (command, family) in [(0x11, 0x11), (0x22, 0x11), (0x2f, 0x11), (0x21, 0x13), (0x21, 0x41), (0x20, 0xff)] {
            assert!(parse_binary(command, family, &six).is_err(), "{command:x} {family:x}");
        }
        assert!(parse_binary(0x21, 0x11, &four[..11]).is_err() && parse_binary(0x21, 0x21, &six[..35]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), command: u8, family: u8) {
            let _ = (parse_line(&bytes), parse_line(&[PROXY, &bytes, b"\r\n"].concat()));
            let _ = parse_binary(command, family, &bytes[..bytes.len().min(36)]);
        }
    }

    /// What is read of these bytes, which come in pieces of this size; and what is left for who reads next.
    async fn read_in_pieces(bytes: &[u8], size: usize) -> (Result<Option<SocketAddr>, ProxyError>, Vec<u8>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        sender.set_nodelay(true).unwrap();
        let (mut socket, _) = listener.accept().await.unwrap();
        let bytes = bytes.to_vec();
        let sending = tokio::spawn(async move {
            for piece in bytes.chunks(size) {
                // The other side may have had enough.
                let _ = sender.write_all(piece).await;
                tokio::task::yield_now().await;
            }
        });
        let address = read(&mut socket).await;
        let mut rest = Vec::new();
        if address.is_ok() {
            socket.read_to_end(&mut rest).await.unwrap();
        }
        sending.await.unwrap();
        (address, rest)
    }

    #[tokio::test]
    async fn nothing_behind_the_header_is_taken_however_it_is_cut() {
        let long =
            [&SIGNATURE[..], &[0x21, 0x11, 0x08, 0], &[192, 0, 2, 7, 10, 0, 0, 1, 0x13, 0x88, 1, 187], &[9; 2036]];
        let short = [&SIGNATURE[..], &[0x20, 0, 0, 0]].concat();
        let line = b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 443\r\n".to_vec();
        let client = Some("192.0.2.7:5000".parse().unwrap());
        for (header, expected) in
            [(long.concat(), client), (short, None), (line, client), (b"PROXY UNKNOWN\r\n".to_vec(), None)]
        {
            for size in [1, 7, 13, 100, 10_000] {
                let (address, rest) = read_in_pieces(&[&header[..], b"\x16\x03\x01\nrest"].concat(), size).await;
                assert_eq!((address.unwrap(), &rest[..]), (expected, &b"\x16\x03\x01\nrest"[..]), "{size}");
            }
        }
    }

    #[tokio::test]
    async fn bytes_that_are_no_header_are_recognised() {
        let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'a'; 200]].concat();
        let huge = [&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat();
        for (bytes, expected) in [
            (&b""[..], "closed at once"),
            (b"\x16\x03\x01\x02\x00", "does not begin"),
            (b"GET / HTTP/1.1\r\n", "does not begin"),
            (b"PROXIED CONNECTION\r\n", "does not begin"),
            (b"\r\n\r\n\0\r\nQUIT\r ", "does not begin"),
            (b"PROXY TCP4 1", "no whole"),
            (b"PROXY TCP4 1.1.1.1 1.1", "no whole"),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", "no whole"),
            (&endless, "the line is too long"),
            (&huge, "it is too long"),
        ] {
            let error = read_in_pieces(bytes, 1_000).await.0.unwrap_err().to_string();
            assert!(error.contains(expected), "{}: {error}", bytes.escape_ascii());
        }
    }
}
