//! Large lists in the layout that Callgate and most people write, read line by line: faster than by the YAML parser, and one
//! item at a time, so that neither the text nor its values need be in memory as a whole. Whatever is laid out otherwise is for the
//! parser; both make the same values with the same positions of the rest.
//!
//! The layout: `KEY:` alone on a line, then items, each with its keys below each other (`- id: a`, `  name: b`) or in braces on one line.
//! Values are scalars of one line without escapes, or lists and maps of those in brackets. Comments and empty lines may be anywhere.

use std::io::{self, BufRead};

use super::Position;
use super::yaml::{YamlEntry, YamlNode, YamlValue, plain};

/// Braces within braces: limits in a record have two.
const MAX_DEPTH: usize = 2;
/// Keys of an item for which there is room at once.
const USUAL_KEYS: usize = 8;

/// The text has another layout from here on.
pub(crate) struct OtherLayout;

impl From<io::Error> for OtherLayout {
    /// Whoever reads the text as a whole meets the error again, and reports it.
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// The items of a list under the only key of a file.
pub(crate) struct SimpleList<R> {
    lines: Lines<R>,
    /// Blanks before the dash of each item.
    indent: Option<usize>,
}

impl<R: BufRead> SimpleList<R> {
    /// Finds the list; `None` if the text begins in another way.
    pub(crate) fn find(text: R, key: &str) -> Option<Self> {
        let mut lines = Lines { text, line: String::new(), number: 0 };
        let head = lines.skip_remarks().ok()??;
        let is_head = head.text.strip_prefix(key).and_then(|rest| rest.strip_prefix(':')).is_some_and(is_blank);
        lines.step();
        is_head.then_some(Self { lines, indent: None })
    }

    fn item(&mut self) -> Result<Option<YamlNode>, OtherLayout> {
        let Some(mut line) = self.lines.skip_remarks()? else { return Ok(None) };
        let indent = line.indent();
        if *self.indent.get_or_insert(indent) != indent || !line.text[indent..].starts_with("- ") {
            return Err(OtherLayout);
        }
        let column = indent + 2;
        line.at = column;
        let position = line.position();
        if line.rest().starts_with('{') {
            let node = line.braces(0)?;
            line.end()?;
            self.lines.step();
            return Ok(Some(node));
        }
        let mut entries = Vec::with_capacity(USUAL_KEYS);
        entries.push(line.entry()?);
        self.lines.step();
        while let Some(mut line) = self.lines.skip_remarks()? {
            if line.indent() != column {
                break;
            }
            line.at = column;
            entries.push(line.entry()?);
            self.lines.step();
        }
        Ok(Some(YamlNode { position, value: YamlValue::Map(entries) }))
    }
}

impl<R: BufRead> Iterator for SimpleList<R> {
    type Item = Result<YamlNode, OtherLayout>;

    fn next(&mut self) -> Option<Self::Item> {
        self.item().transpose()
    }
}

/// The lines of a text, of which one is in memory.
struct Lines<R> {
    text: R,
    /// The present line without its end; empty: it is still to be read.
    line: String,
    /// The number of the present line.
    number: usize,
}

impl<R: BufRead> Lines<R> {
    /// Steps over empty lines and comments to a line that is neither; `None` at the end.
    fn skip_remarks(&mut self) -> io::Result<Option<Line<'_>>> {
        while is_remark(&self.line) {
            self.line.clear();
            if self.text.read_line(&mut self.line)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.line.ends_with('\n') {
                self.line.pop();
            }
        }
        Ok(Some(Line { number: self.number, text: &self.line, at: 0 }))
    }

    /// Leaves the present line.
    fn step(&mut self) {
        self.line.clear();
    }
}

/// One line and a place in it, in bytes.
struct Line<'a> {
    number: usize,
    text: &'a str,
    at: usize,
}

impl<'a> Line<'a> {
    /// Blanks at its beginning.
    fn indent(&self) -> usize {
        self.text.bytes().take_while(|byte| *byte == b' ').count()
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn position(&self) -> Position {
        let before = &self.text[..self.at];
        let column = if before.is_ascii() { before.len() } else { before.chars().count() };
        Position { line: self.number, column: column + 1 }
    }

    /// Steps over `text`, if it is there.
    fn take(&mut self, text: &str) -> bool {
        let is_there = self.rest().starts_with(text);
        self.at += if is_there { text.len() } else { 0 };
        is_there
    }

    fn demand(&mut self, text: &str) -> Result<(), OtherLayout> {
        self.take(text).then_some(()).ok_or(OtherLayout)
    }

    fn skip_blanks(&mut self) {
        self.at += self.rest().bytes().take_while(|byte| *byte == b' ').count();
    }

    /// Nothing more but blanks and a comment.
    fn end(&self) -> Result<(), OtherLayout> {
        let rest = self.rest();
        let is_end = is_blank(rest) || (rest.starts_with(' ') && is_remark(rest));
        is_end.then_some(()).ok_or(OtherLayout)
    }

    /// A key and its value, which end the line.
    fn entry(&mut self) -> Result<YamlEntry, OtherLayout> {
        let key_position = self.position();
        let is_key = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'_';
        let key = &self.rest()[..self.rest().bytes().take_while(|byte| is_key(byte)).count().min(64)];
        self.at += key.len();
        if key.is_empty() {
            return Err(OtherLayout);
        }
        self.demand(": ")?;
        self.skip_blanks();
        let node = self.value(0)?;
        self.end()?;
        Ok(YamlEntry { key: key.to_owned(), key_position, node })
    }

    /// `depth`: the braces around it. Deeper ones than anybody writes are left to the parser, which bounds them.
    fn value(&mut self, depth: usize) -> Result<YamlNode, OtherLayout> {
        match self.rest().as_bytes().first() {
            Some(b'[') => self.brackets(),
            Some(b'{') if depth < MAX_DEPTH => self.braces(depth),
            Some(b'{') => Err(OtherLayout),
            _ => self.scalar(depth > 0),
        }
    }

    fn scalar(&mut self, inside: bool) -> Result<YamlNode, OtherLayout> {
        let (position, rest) = (self.position(), self.rest());
        let quote = rest.chars().next().filter(|first| matches!(first, '"' | '\''));
        let (text, length) = match quote {
            Some(quote) => {
                let text = rest[1..].split_once(quote).ok_or(OtherLayout)?.0;
                (text, text.len() + 2)
            }
            None => {
                let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.:/*+-@".contains(byte);
                let length = rest.bytes().take_while(|byte| is_plain(byte) || (*byte == b' ' && !inside)).count();
                (rest[..length].trim_end(), rest[..length].trim_end().len())
            }
        };
        self.at += length;
        let is_simple = match quote {
            // A quote in quotes is written twice, and a backslash escapes.
            Some(quote) => !self.rest().starts_with(quote) && text.chars().all(is_ordinary),
            None => {
                let starts = text.starts_with(|first: char| first.is_ascii_alphanumeric());
                starts && !text.ends_with(':') && !text.contains(": ")
            }
        };
        if !is_simple {
            return Err(OtherLayout);
        }
        let value = if quote.is_some() { YamlValue::Text(text.to_owned()) } else { plain(text) };
        Ok(YamlNode { position, value })
    }

    fn brackets(&mut self) -> Result<YamlNode, OtherLayout> {
        let position = self.position();
        self.demand("[")?;
        self.skip_blanks();
        let mut items = Vec::new();
        while !self.take("]") {
            if !items.is_empty() {
                self.comma()?;
            }
            items.push(self.scalar(true)?);
            self.skip_blanks();
        }
        Ok(YamlNode { position, value: YamlValue::List(items) })
    }

    fn braces(&mut self, depth: usize) -> Result<YamlNode, OtherLayout> {
        let position = self.position();
        self.demand("{")?;
        self.skip_blanks();
        let mut entries = Vec::new();
        while !self.take("}") {
            if !entries.is_empty() {
                self.comma()?;
            }
            let key_position = self.position();
            let key = self.flow_key()?;
            self.demand(": ")?;
            self.skip_blanks();
            let node = self.value(depth + 1)?;
            entries.push(YamlEntry { key, key_position, node });
            self.skip_blanks();
        }
        Ok(YamlNode { position, value: YamlValue::Map(entries) })
    }

    fn comma(&mut self) -> Result<(), OtherLayout> {
        self.demand(", ")?;
        self.skip_blanks();
        Ok(())
    }

    /// A key in braces: a word or a text in double quotes.
    fn flow_key(&mut self) -> Result<String, OtherLayout> {
        let rest = self.rest();
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
        let (key, length) = match rest.strip_prefix('"').and_then(|quoted| quoted.split_once('"')) {
            Some((key, _)) => (key, key.len() + 2),
            None => {
                let length = rest.bytes().take_while(is_word).count();
                (&rest[..length], length)
            }
        };
        let starts = rest.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '"');
        if !starts || length > 128 || !key.bytes().all(|byte| is_word(&byte)) {
            return Err(OtherLayout);
        }
        self.at += length;
        Ok(key.to_owned())
    }
}

/// A character that stands for itself between quotes, whatever line ends and escapes a parser knows.
fn is_ordinary(character: char) -> bool {
    character != '\\' && !character.is_control() && !matches!(character, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

fn is_blank(text: &str) -> bool {
    text.bytes().all(|byte| byte == b' ')
}

/// An empty line or a comment. A comment must be made of ordinary characters, too.
fn is_remark(line: &str) -> bool {
    let text = line.trim_start_matches(' ');
    text.is_empty()
        || (text.starts_with('#') && text.chars().all(|character| is_ordinary(character) || character == '\\'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::yaml::parse;
    use super::*;

    /// The items, as far as their layout is simple to the end.
    fn simple(text: &str) -> Option<Vec<YamlNode>> {
        SimpleList::find(text.as_bytes(), "tokens")?.collect::<Result<_, _>>().ok()
    }

    fn parsed(text: &str) -> Option<Vec<YamlNode>> {
        let YamlValue::Map(mut entries) = parse(text, 10_000).ok()?.value else { return None };
        match entries.pop()?.node.value {
            YamlValue::List(items) => Some(items),
            YamlValue::Null => Some(Vec::new()),
            _ => None,
        }
    }

    #[test]
    fn the_layouts_that_people_write_are_simple() {
        for text in [
            "# ours\n\ntokens:\n  - id: \"a\"\n    hash: \"0a\"\n    # why\n    permissions: [\"a:b\", c:*]\n    at: 2027-01-31T12:00:00Z\n",
            "tokens:\n- id: a # first\n  name: 'two words'\n  account: two words # here\n\n- { id: b, limits: { minute: 9/1m, \"d\": 5/1d }, n: 7 }",
            "tokens:\n  - id: Ä\u{2028}\n",
        ] {
            let (simple, parsed) = (simple(text), parsed(text));
            assert_eq!(simple.is_some(), !text.contains('Ä'), "{text}");
            assert!(
                simple.is_none() || format!("{simple:?}") == format!("{parsed:?}"),
                "{text}\n{simple:?}\n{parsed:?}"
            );
        }
    }

    /// Pieces of token files, well and badly put together.
    fn text() -> impl Strategy<Value = String> {
        let pieces = prop::sample::select(vec![
            "- ",
            "  - ",
            "  ",
            "    ",
            "id: ",
            "name: ",
            "a",
            "b c",
            "\"x\"",
            "'y'",
            "\"é\" ",
            "[a, b]",
            "[\"é\", b:c ]",
            "[]",
            "{ k: v }",
            "{ \"k\": 1, l: [a] }",
            ": ",
            ":",
            ", ",
            " # c",
            "#",
            "\n",
            "\n",
            "\n",
            "\n    name: ",
            "\n  - id: ",
            "null",
            "true",
            "07",
            "1e3",
            "2027-01-31",
            "''",
            "\"\"",
            "\\",
            "&a ",
            "*a",
            "!",
            "---",
            "\t",
            "\r",
            "|",
            ">",
            "? ",
            "<<: ",
            "%",
            "@",
            "`",
            "-",
            "~",
        ]);
        prop::collection::vec(pieces, 0..14).prop_map(|pieces| format!("tokens:\n  - id: {}", pieces.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn both_readers_read_the_same_values(text in text()) {
            if let Some(items) = simple(&text) {
                prop_assert_eq!(format!("{:?}", Some(items)), format!("{:?}", parsed(&text)), "{}", text);
            }
        }
    }
}
