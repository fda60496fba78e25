//! Redis's protocol (RESP 2): words written, and replies read whatever pieces they come in.

use bytes::{Buf, BytesMut};
use memchr::memchr;
use redis::{ErrorKind, RedisError, RedisResult, Value, parse_redis_value};

/// Begins a command of so many words.
pub(crate) fn write_array(out: &mut Vec<u8>, words: usize) {
    write_header(out, b'*', words);
}

/// Writes a word.
pub(crate) fn write_bulk(out: &mut Vec<u8>, word: &[u8]) {
    write_bulk_of(out, &[word]);
}

/// Writes a number as a word.
pub(crate) fn write_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    write_bulk(out, itoa::Buffer::new().format(number).as_bytes());
}

/// Writes a word that consists of parts.
pub(crate) fn write_bulk_of(out: &mut Vec<u8>, parts: &[&[u8]]) {
    write_header(out, b'$', parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(b"\r\n");
}

fn write_header(out: &mut Vec<u8>, kind: u8, length: usize) {
    let digit = |number: usize| b'0' + number as u8;
    match length {
        // Nearly all. (At once, because a decision has a dozen.)
        0..10 => out.extend_from_slice(&[kind, digit(length), b'\r', b'\n']),
        10..100 => out.extend_from_slice(&[kind, digit(length / 10), digit(length % 10), b'\r', b'\n']),
        _ => {
            out.push(kind);
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Finds the replies in a stream of bytes.
pub(super) struct ReplyReader {
    /// So many bytes of the next reply have been looked at.
    seen: usize,
    /// So many values are missing behind them.
    missing: usize,
}

impl ReplyReader {
    pub(super) fn new() -> Self {
        Self { seen: 0, missing: 1 }
    }

    /// The next reply, taken out of the input once all of it is there. One that says that a command failed is an error within.
    ///
    /// # Errors
    /// What follows is no reply.
    pub(super) fn next(&mut self, input: &mut BytesMut) -> RedisResult<Option<RedisResult<Value>>> {
        while self.missing > 0 {
            let Some((length, values)) = part(&input[self.seen..])? else { return Ok(None) };
            self.seen += length;
            self.missing = (self.missing - 1).checked_add(values).ok_or_else(no_reply)?;
        }
        let reply = read(&input[..self.seen])?;
        input.advance(self.seen);
        *self = Self::new();
        Ok(Some(reply))
    }
}

/// Redis's own bound of a text, and more than any line of its answers has.
const MAX_TEXT: usize = 512 << 20;
const MAX_LINE: usize = 64 << 10;

/// The length of the first value, or of an array's header with the number of values in it; `None` before all of that is there.
fn part(bytes: &[u8]) -> RedisResult<Option<(usize, usize)>> {
    let Some(end) = memchr(b'\n', bytes) else {
        return if bytes.len() > MAX_LINE { Err(no_reply()) } else { Ok(None) };
    };
    let header = end + 1;
    let number = || {
        let digits = bytes[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(&line[1..]).ok());
        // -1 stands for no value.
        digits.and_then(|digits| digits.parse::<i64>().ok()).ok_or_else(no_reply)
    };
    match bytes[0] {
        b'+' | b'-' | b':' => Ok(Some((header, 0))),
        b'*' => Ok(Some((header, usize::try_from(number()?).unwrap_or(0)))),
        b'$' => {
            let text = usize::try_from(number()?).ok();
            if text.is_some_and(|text| text > MAX_TEXT) {
                return Err(no_reply());
            }
            let length = header + text.map_or(0, |text| text + 2);
            let is_there = bytes.len() >= length;
            if is_there && !bytes[..length].ends_with(b"\r\n") {
                return Err(no_reply());
            }
            Ok(is_there.then_some((length, 0)))
        }
        _ => Err(no_reply()),
    }
}

fn read(reply: &[u8]) -> RedisResult<RedisResult<Value>> {
    // What decisions are answered with; all else takes the client library's parser, which is general, and slow.
    if let (b'$', Some(end)) = (reply[0], memchr(b'\n', reply)) {
        let text = reply.get(end + 1..reply.len() - 2);
        return Ok(Ok(text.map_or(Value::Nil, |text| Value::BulkString(text.to_vec()))));
    }
    Ok(parse_redis_value(reply)?.extract_error())
}

fn no_reply() -> RedisError {
    RedisError::from((ErrorKind::Parse, "not an answer of Redis"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_written_as_the_client_library_does() {
        let mut out = Vec::new();
        let lengths = [0, 1, 9, 10, 11, 99, 100, 101, 12_345];
        write_array(&mut out, 3 + lengths.len());
        write_bulk(&mut out, b"SET");
        write_bulk_of(&mut out, &[b"gate", b":{", b"a", b"}"]);
        write_number(&mut out, 4_096);
        lengths.iter().for_each(|length| write_bulk(&mut out, &vec![b'x'; *length]));
        let mut command = redis::cmd("SET").arg("gate:{a}").arg(4_096).take();
        lengths.iter().for_each(|length| _ = command.arg(vec![b'x'; *length]));
        let command = command.get_packed_command();
        assert_eq!(out, command);
    }

    #[test]
    fn replies_are_the_client_librarys_whatever_pieces_they_come_in() {
        let replies: [&[u8]; 10] = [
            b"$5\r\nh\r\nlo\r\n",
            b"$0\r\n\r\n",
            b"$-1\r\n",
            b"+OK\r\n",
            b":-7\r\n",
            b"-MOVED 5 10.0.0.1:7000\r\n",
            b"*-1\r\n",
            b"*0\r\n",
            b"*3\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n+x\r\n",
            b"*2\r\n+OK\r\n-ERR no\r\n",
        ];
        let stream = replies.concat();
        for step in 1..=stream.len() {
            let (mut reader, mut input, mut read) = (ReplyReader::new(), BytesMut::new(), Vec::new());
            for piece in stream.chunks(step) {
                input.extend_from_slice(piece);
                while let Some(reply) = reader.next(&mut input).unwrap() {
                    read.push(reply);
                }
            }
            let expected = replies.map(|reply| parse_redis_value(reply).unwrap().extract_error());
            assert_eq!(read, expected, "in pieces of {step}");
            assert!(input.is_empty());
        }
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        let deep = b"*1\r\n".repeat(200);
        let line = b"+x".repeat(40_000);
        let cases: [&[u8]; 10] = [
            b"$1\r\nab\r\n",
            b"$536870913\r\n",
            &line,
            b"HTTP/1.1 400 Bad Request\r\n",
            b"\r\n",
            b"$x\r\n",
            b"*9223372036854775807\r\n*9223372036854775807\r\n*9223372036854775807\r\n",
            b"$1\n",
            b":x\r\n",
            &[&deep[..], b":1\r\n"].concat(),
        ];
        for bytes in cases {
            let error = ReplyReader::new().next(&mut BytesMut::from(bytes));
            assert!(error.is_err_and(|error| error.kind() == ErrorKind::Parse), "{}", bytes.escape_ascii());
        }
    }
}
