//! One framing or none: a strict reader of HTTP/1.1 message boundaries that stands in front of hyper's lenient one.
//!
//! Request smuggling lives on two parsers that see different boundaries in the same bytes. So every request head is judged
//! here, byte for byte, before hyper sees it, and the body is followed to its end so that the next head is found where it
//! really starts. Pure: bytes in, verdicts out (RFC 9112 §2.2, §3, §5, §6, §7.1).

use super::head::{self, HeadLimits, RequestFault, Search};

/// How the bytes after the current position are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FramingState {
    /// At the start of a head.
    Head,
    /// Within a body of known length.
    Sized(u64),
    /// Within a chunked body.
    Chunked(Chunk),
    /// After a fault: nothing more is read.
    Refused,
    /// After an upgrade: everything passes.
    Tunnel,
}

/// Where in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// In a chunk-size line: value so far, digits so far.
    Size(u64, u8),
    /// In a chunk extension: bytes so far.
    Extension(u64),
    /// After the CR of a chunk-size line.
    SizeLf(u64),
    /// In chunk data: bytes left.
    Data(u64),
    /// After chunk data: CR, then LF.
    DataCr,
    DataLf,
    /// At the start of a trailer line, in its name, in its value, after its CR; and after the CR of the empty last line.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
}

/// What is known of a stretch of bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FramingVerdict {
    /// All of it may pass.
    Pass,
    /// The first so many bytes may pass; the rest is the beginning of a head that isn't complete yet.
    Partial(usize),
    /// The first so many bytes may pass; [`EMPTY_LINE`] bytes after them are left out, and what follows has not been judged.
    Skip(usize),
    /// The first so many bytes may pass; what follows is no request, and nothing after it will be read.
    Refuse(usize, RequestFault),
    /// The first so many bytes may pass; there the body of a request breaks its framing.
    Broken(usize),
}

/// A chunked body that isn't one.
struct BrokenBody;

/// Follows one connection's requests.
#[derive(Debug)]
pub(super) struct Framing {
    state: FramingState,
    limits: HeadLimits,
    search: Search,
    /// An empty line before the present head has been left out.
    skipped: bool,
    /// Heads that have passed.
    heads: usize,
    trailer_bytes: usize,
    extension_bytes: usize,
}

/// The length of an empty line.
pub(super) const EMPTY_LINE: usize = 2;

/// Chunk extensions of one body may take so many bytes together: nobody uses them but attackers.
const MAX_EXTENSION_BYTES: usize = 1024;

impl Framing {
    pub(super) fn new(limits: HeadLimits) -> Self {
        Self {
            state: FramingState::Head,
            limits,
            search: Search::default(),
            skipped: false,
            heads: 0,
            trailer_bytes: 0,
            extension_bytes: 0,
        }
    }

    /// From here on everything passes: the connection was upgraded.
    pub(super) fn tunnel(&mut self) {
        if self.state != FramingState::Refused {
            self.state = FramingState::Tunnel;
        }
    }

    /// From here on nothing is read.
    pub(super) fn refuse(&mut self) {
        self.state = FramingState::Refused;
    }

    /// How many requests have passed so far.
    pub(super) fn heads(&self) -> usize {
        self.heads
    }

    /// Whether the client still owes bytes of a message, or sends what nobody will read.
    pub(super) fn is_within_message(&self) -> bool {
        !matches!(self.state, FramingState::Head | FramingState::Tunnel)
    }

    /// How many bytes of a body are still to come from the client; more than can be for a chunked one.
    pub(super) fn owed(&self) -> u64 {
        match self.state {
            FramingState::Head | FramingState::Tunnel => 0,
            FramingState::Sized(left) => left,
            FramingState::Chunked(_) | FramingState::Refused => u64::MAX,
        }
    }

    /// Judges the bytes that follow those judged before. A head is judged only when it is there as a whole: after
    /// [`FramingVerdict::Partial`] the caller comes again with the rest appended to what was left over.
    pub(super) fn judge(&mut self, bytes: &[u8]) -> FramingVerdict {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match self.state {
                FramingState::Tunnel => return FramingVerdict::Pass,
                FramingState::Refused => return FramingVerdict::Broken(at),
                FramingState::Sized(left) => {
                    let step = left.min(rest.len() as u64);
                    at += step as usize;
                    self.state = if left == step { FramingState::Head } else { FramingState::Sized(left - step) };
                }
                FramingState::Chunked(chunk) => match self.chunk(chunk, rest) {
                    Ok((used, next)) => {
                        at += used;
                        self.state = next;
                    }
                    Err(BrokenBody) => {
                        self.state = FramingState::Refused;
                        return FramingVerdict::Broken(at);
                    }
                },
                // One empty line before a request is nobody's (RFC 9112 §2.2): some clients end a body with it. It is left
                // out here, so that no other parser has to think about it.
                FramingState::Head if !self.skipped && rest.starts_with(b"\r\n") => {
                    self.skipped = true;
                    return FramingVerdict::Skip(at);
                }
                FramingState::Head if !self.skipped && rest == b"\r" => return FramingVerdict::Partial(at),
                FramingState::Head => match head::read(rest, &self.limits, &mut self.search) {
                    Ok(Some(head)) => {
                        at += head.length;
                        (self.search, self.skipped) = (Search::default(), false);
                        self.heads += 1;
                        self.state = match head.body {
                            head::BodyLength::None => FramingState::Head,
                            head::BodyLength::Sized(length) => FramingState::Sized(length),
                            head::BodyLength::Chunked => {
                                (self.trailer_bytes, self.extension_bytes) = (0, 0);
                                FramingState::Chunked(Chunk::Size(0, 0))
                            }
                        };
                    }
                    Ok(None) => return FramingVerdict::Partial(at),
                    Err(fault) => {
                        self.state = FramingState::Refused;
                        return FramingVerdict::Refuse(at, fault);
                    }
                },
            }
        }
        FramingVerdict::Pass
    }

    /// One step through a chunked body: how many bytes it took, and what comes next.
    fn chunk(&mut self, chunk: Chunk, rest: &[u8]) -> Result<(usize, FramingState), BrokenBody> {
        let byte = rest[0];
        let next = match chunk {
            Chunk::Size(size, digits) => match (char::from(byte).to_digit(16), byte) {
                // 15 digits can't overflow, and no upload needs 16.
                (Some(digit), _) if digits < 15 => Chunk::Size(size << 4 | u64::from(digit), digits + 1),
                (None, b'\r') if digits > 0 => Chunk::SizeLf(size),
                (None, b';') if digits > 0 => Chunk::Extension(size),
                _ => return Err(BrokenBody),
            },
            Chunk::Extension(size) => {
                self.extension_bytes += 1;
                match byte {
                    _ if self.extension_bytes > MAX_EXTENSION_BYTES => return Err(BrokenBody),
                    b'\r' => Chunk::SizeLf(size),
                    b'\t' | 0x20..=0x7e => Chunk::Extension(size),
                    _ => return Err(BrokenBody),
                }
            }
            Chunk::SizeLf(size) if byte == b'\n' => {
                if size == 0 {
                    Chunk::TrailerStart
                } else {
                    Chunk::Data(size)
                }
            }
            Chunk::Data(left) => {
                let step = left.min(rest.len() as u64);
                let next = if left == step { Chunk::DataCr } else { Chunk::Data(left - step) };
                return Ok((step as usize, FramingState::Chunked(next)));
            }
            Chunk::DataCr if byte == b'\r' => Chunk::DataLf,
            Chunk::DataLf if byte == b'\n' => Chunk::Size(0, 0),
            Chunk::TrailerStart | Chunk::TrailerName | Chunk::TrailerValue => {
                self.trailer_bytes += 1;
                match (chunk, byte) {
                    _ if self.trailer_bytes > self.limits.bytes => return Err(BrokenBody),
                    (Chunk::TrailerStart, b'\r') => Chunk::EndLf,
                    (Chunk::TrailerName, b':') => Chunk::TrailerValue,
                    (Chunk::TrailerValue, b'\r') => Chunk::TrailerLf,
                    (Chunk::TrailerValue, byte) if head::is_value_char(byte) => Chunk::TrailerValue,
                    (Chunk::TrailerStart | Chunk::TrailerName, byte) if head::is_tchar(byte) => Chunk::TrailerName,
                    _ => return Err(BrokenBody),
                }
            }
            Chunk::TrailerLf if byte == b'\n' => Chunk::TrailerStart,
            Chunk::EndLf if byte == b'\n' => return Ok((1, FramingState::Head)),
            Chunk::SizeLf(_) | Chunk::DataCr | Chunk::DataLf | Chunk::TrailerLf | Chunk::EndLf => {
                return Err(BrokenBody);
            }
        };
        Ok((1, FramingState::Chunked(next)))
    }
}
