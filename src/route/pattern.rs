//! Path patterns by their segments, in the form in which loosely spelled paths are compared with them.

use std::borrow::Cow;

/// A pattern by its segments, folded.
pub(super) struct Pattern {
    pub(super) segments: Vec<Segment>,
    pub(super) ends_with_slash: bool,
    /// Nothing of its text had to be changed.
    pub(super) is_plain: bool,
}

#[derive(PartialEq)]
pub(super) enum Segment {
    Text(String),
    /// A `{name}` with the text before and behind it.
    Parameter(String, String),
    /// A `{*rest}`.
    Rest,
}

impl Pattern {
    /// Takes apart a pattern that is sound.
    pub(super) fn new(pattern: &str) -> Self {
        let spelled: Vec<_> =
            pattern.split('/').filter(|segment| !segment.is_empty()).map(Segment::as_spelled).collect();
        let segments: Vec<_> = spelled.iter().map(Segment::folded).collect();
        let is_plain = segments == spelled && !pattern.contains("//");
        Self { segments, ends_with_slash: pattern.ends_with('/'), is_plain }
    }

    /// It has no parameters: one path alone is spelled like it.
    pub(super) fn is_literal(&self) -> bool {
        self.segments.iter().all(|segment| matches!(segment, Segment::Text(_)))
    }

    pub(super) fn has_rest(&self) -> bool {
        matches!(self.segments.last(), Some(Segment::Rest))
    }

    /// Of parameters with text behind them matchit tries only the first that fits a segment. When the rest of the path does not fit
    /// then, it misses the pattern that would.
    pub(super) fn hides_others(&self) -> bool {
        let followed = self.segments.len() - usize::from(!self.ends_with_slash && !self.segments.is_empty());
        self.segments[..followed].iter().any(|segment| matches!(segment, Segment::Parameter(_, end) if !end.is_empty()))
    }
}

impl Segment {
    fn as_spelled(text: &str) -> Self {
        // Doubled braces are text. Control characters, which no pattern has, keep their places.
        let text = text.replace("{{", "\u{1}").replace("}}", "\u{2}");
        let unescaped = |text: &str| text.replace('\u{1}', "{").replace('\u{2}', "}");
        match text.split_once('{') {
            None => Self::Text(unescaped(&text)),
            Some((_, parameter)) if parameter.starts_with('*') => Self::Rest,
            Some((before, parameter)) => {
                let behind = parameter.split_once('}').map_or("", |(_, behind)| behind);
                Self::Parameter(unescaped(before), unescaped(behind))
            }
        }
    }

    fn folded(&self) -> Self {
        let name = |text: &str| without_loose_end(&folded(text)).to_owned();
        match self {
            Self::Text(text) => Self::Text(name(text)),
            Self::Parameter(before, behind) => Self::Parameter(folded(before).into_owned(), name(behind)),
            Self::Rest => Self::Rest,
        }
    }

    /// As matchit takes it.
    pub(super) fn pattern(&self) -> String {
        let escaped = |text: &str| text.replace('{', "{{").replace('}', "}}");
        match self {
            Self::Text(text) => escaped(text),
            Self::Parameter(before, behind) => format!("{}{{name}}{}", escaped(before), escaped(behind)),
            Self::Rest => "{*rest}".to_owned(),
        }
    }
}

/// In lower case, with escapes of visible characters decoded.
pub(super) fn folded(text: &str) -> Cow<'_, str> {
    if !text.bytes().fold(false, |found, byte| found | byte.is_ascii_uppercase() | (byte == b'%')) {
        return Cow::Borrowed(text);
    }
    let mut folded = String::with_capacity(text.len());
    let mut left = text;
    while let Some(at) = left.find('%') {
        folded.push_str(&left[..at]);
        let digits = left.get(at + 1..at + 3).unwrap_or_default();
        match u8::from_str_radix(digits, 16) {
            Ok(byte) if byte.is_ascii_graphic() && !b"%/".contains(&byte) => {
                folded.push(char::from(byte));
                left = &left[at + 3..];
            }
            _ => {
                folded.push('%');
                left = &left[at + 1..];
            }
        }
    }
    folded.push_str(left);
    folded.make_ascii_lowercase();
    Cow::Owned(folded)
}

/// Without the full stops and blanks at its end: some file systems drop them.
pub(super) fn without_loose_end(segment: &str) -> &str {
    let mut left = segment;
    let blank = |text: &'_ str| ["%20", "%09", "%0a", "%0d"].iter().any(|blank| text.ends_with(blank));
    loop {
        left = match left.strip_suffix('.') {
            Some(shorter) => shorter,
            None if blank(left) => &left[..left.len() - 3],
            None => return left,
        };
    }
}
