//! Second opinions on where messages begin and end: one reader, written apart from the gate, with the leniencies that servers and
//! proxies are known for as switches. It checks nothing; it only finds boundaries.

/// Leniencies; each is one that real parsers have.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Quirks {
    /// A lone LF ends a line.
    lone_lf: bool,
    /// A lone CR ends a line.
    lone_cr: bool,
    /// A line that begins with a blank continues the one before.
    folds: bool,
    /// Blanks and control characters around names and values don't count.
    trims: bool,
    /// Of several lines of one name the last one counts, instead of the first.
    last_wins: bool,
    /// Content-Length counts even beside Transfer-Encoding.
    length_wins: bool,
}

/// How long a body is said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Known(u64),
    Chunked,
}

/// One message as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) first_line: String,
    pub(super) host: Option<String>,
    pub(super) length: Length,
    /// Without its chunks' sizes; so much of it as is there.
    pub(super) body: Vec<u8>,
    /// Whether all of it is there.
    pub(super) whole: bool,
}

impl Quirks {
    pub(super) const NONE: Self =
        Self { lone_lf: false, lone_cr: false, folds: false, trims: false, last_wins: false, length_wins: false };

    /// Every combination.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..64_u8).map(|bits| {
            let [lone_lf, lone_cr, folds, trims, last_wins, length_wins] =
                [1, 2, 4, 8, 16, 32].map(|bit| bits & bit != 0);
            Self { lone_lf, lone_cr, folds, trims, last_wins, length_wins }
        })
    }

    /// The line at the start of `bytes` and what comes after it; `None` if it has no end.
    fn line<'a>(&self, bytes: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'\r' if bytes.get(at + 1) == Some(&b'\n') => return Some((&bytes[..at], &bytes[at + 2..])),
                b'\r' if self.lone_cr && at + 1 < bytes.len() => return Some((&bytes[..at], &bytes[at + 1..])),
                b'\n' if self.lone_lf => return Some((&bytes[..at], &bytes[at + 1..])),
                _ => {}
            }
        }
        None
    }

    fn trim<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        let dropped = |byte: &u8| matches!(byte, b' ' | b'\t') || (self.trims && *byte <= 0x20);
        let start = text.iter().position(|byte| !dropped(byte)).unwrap_or(text.len());
        let end = text.iter().rposition(|byte| !dropped(byte)).map_or(start, |at| at + 1);
        &text[start..end]
    }

    /// Which of several values counts.
    fn choose<'a>(&self, values: &'a [Vec<u8>]) -> Option<&'a Vec<u8>> {
        if self.last_wins { values.last() } else { values.first() }
    }
}

/// All messages in a stream; the last one may not be whole.
pub(super) fn read_all(mut bytes: &[u8], quirks: Quirks) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some((message, rest)) = read(bytes, quirks) {
        bytes = rest;
        messages.push(message);
    }
    messages
}

/// `None` when there is no whole head.
fn read(bytes: &[u8], quirks: Quirks) -> Option<(Message, &[u8])> {
    let (first_line, mut rest) = quirks.line(bytes)?;
    let mut lines: Vec<Vec<u8>> = Vec::new();
    loop {
        let (line, after) = quirks.line(rest)?;
        rest = after;
        match (line.first(), lines.last_mut()) {
            (None, _) => break,
            (Some(b' ' | b'\t'), Some(last)) if quirks.folds => last.extend_from_slice(line),
            _ => lines.push(line.to_vec()),
        }
    }
    let of = |wanted: &str| -> Vec<Vec<u8>> {
        let fields = lines.iter().filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = if quirks.trims { quirks.trim(&line[..colon]) } else { &line[..colon] };
            name.eq_ignore_ascii_case(wanted.as_bytes()).then(|| quirks.trim(&line[colon + 1..]).to_vec())
        });
        fields.collect()
    };
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let length = length(&of("content-length"), &of("transfer-encoding"), quirks);
    let (body, whole, rest) = match length {
        Length::Chunked => chunks(rest, quirks),
        Length::Known(count) => {
            let there = usize::try_from(count).unwrap_or(usize::MAX).min(rest.len());
            (rest[..there].to_vec(), there as u64 == count, &rest[there..])
        }
    };
    let host = quirks.choose(&of("host")).map(|host| text(host));
    Some((Message { first_line: text(first_line), host, length, body, whole }, rest))
}

fn length(lengths: &[Vec<u8>], codings: &[Vec<u8>], quirks: Quirks) -> Length {
    let known = quirks.choose(lengths).map(|value| {
        // As `strtoull` reads: up to the first thing that is no digit.
        let digits = value.iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0_u64, |number, digit| number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
    });
    let coding = quirks.choose(codings);
    let chunked = coding.is_some_and(|value| value.to_ascii_lowercase().windows(7).any(|word| word == b"chunked"));
    match (chunked, known) {
        (true, Some(length)) if quirks.length_wins => Length::Known(length),
        (true, _) => Length::Chunked,
        (false, length) => Length::Known(length.unwrap_or(0)),
    }
}

/// The data of a chunked body, whether its end is there, and what comes after it.
fn chunks(mut bytes: &[u8], quirks: Quirks) -> (Vec<u8>, bool, &[u8]) {
    let mut data = Vec::new();
    loop {
        let Some((line, rest)) = quirks.line(bytes) else { return (data, false, &[]) };
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let digits = quirks.trim(size).iter().map_while(|byte| char::from(*byte).to_digit(16));
        let size = digits.fold(0_usize, |number, digit| number.wrapping_mul(16).wrapping_add(digit as usize));
        bytes = rest;
        if size == 0 {
            break;
        }
        let there = size.min(bytes.len());
        data.extend_from_slice(&bytes[..there]);
        bytes = &bytes[there..];
        if there < size {
            return (data, false, &[]);
        }
        let Some((_, rest)) = quirks.line(bytes) else { return (data, false, &[]) };
        bytes = rest;
    }
    loop {
        let Some((line, rest)) = quirks.line(bytes) else { return (data, false, &[]) };
        bytes = rest;
        if line.is_empty() {
            return (data, true, bytes);
        }
    }
}
