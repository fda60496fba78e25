//! One line of the simple layout, read from left to right.

use std::borrow::Cow;

use super::value::{OtherLayout, SimpleEntry, SimpleNode, SimpleValue};
use crate::config::Position;

/// Braces within braces: limits in a record have two.
const MAX_DEPTH: usize = 2;

/// One line and a place in it, in bytes.
pub(super) struct Line<'a> {
    number: usize,
    text: &'a str,
    is_ascii: bool,
    pub(super) at: usize,
}

impl<'a> Line<'a> {
    pub(super) fn new(number: usize, text: &'a str) -> Self {
        Self { number, text, is_ascii: text.is_ascii(), at: 0 }
    }

    /// Blanks at its beginning.
    pub(super) fn indent(&self) -> usize {
        blanks(self.text)
    }

    /// Steps over the dash of an item.
    pub(super) fn start_item(&mut self, indent: usize) -> Result<(), OtherLayout> {
        self.at = indent;
        self.demand("- ")
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(super) fn position(&self) -> Position {
        let column = if self.is_ascii { self.at } else { self.text[..self.at].chars().count() };
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
        self.at += blanks(self.rest());
    }

    /// Nothing more but blanks and a comment.
    pub(super) fn end(&self) -> Result<(), OtherLayout> {
        let rest = self.rest();
        let is_end = is_blank(rest) || (rest.starts_with(' ') && is_remark(rest));
        is_end.then_some(()).ok_or(OtherLayout)
    }

    /// A key and its value, which end the line.
    pub(super) fn entry(&mut self) -> Result<SimpleEntry<'a>, OtherLayout> {
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
        Ok(SimpleEntry { key, key_position, node })
    }

    /// `depth`: the braces around it. Deeper ones than anybody writes are left to the parser, which bounds them.
    fn value(&mut self, depth: usize) -> Result<SimpleNode<'a>, OtherLayout> {
        let position = self.position();
        let value = match self.rest().as_bytes().first() {
            Some(b'[') => SimpleValue::List(self.brackets()?),
            Some(b'{') if depth < MAX_DEPTH => SimpleValue::Map(self.braces(depth)?),
            Some(b'{') => return Err(OtherLayout),
            _ => return self.scalar(depth > 0),
        };
        Ok(SimpleNode { position, value })
    }

    /// `inside`: of brackets or braces.
    fn scalar(&mut self, inside: bool) -> Result<SimpleNode<'a>, OtherLayout> {
        let position = self.position();
        let value = match self.rest().as_bytes().first() {
            Some(b'"') => SimpleValue::Quoted(self.double_quoted()?),
            Some(b'\'') => SimpleValue::Quoted(self.single_quoted()?.into()),
            _ => SimpleValue::Plain(self.plain(inside)?),
        };
        Ok(SimpleNode { position, value })
    }

    fn plain(&mut self, inside: bool) -> Result<&'a str, OtherLayout> {
        let rest = self.rest();
        let is_plain = |byte: u8| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'_' | b'.' | b':' | b'/' | b'*' | b'+' | b'-' | b'@')
                || (byte == b' ' && !inside)
        };
        let length = rest.bytes().position(|byte| !is_plain(byte)).unwrap_or(rest.len());
        let text = rest[..length].trim_end_matches(' ');
        self.at += text.len();
        let starts = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        let is_simple = starts && !text.ends_with(':') && !text.contains(": ");
        is_simple.then_some(text).ok_or(OtherLayout)
    }

    fn single_quoted(&mut self) -> Result<&'a str, OtherLayout> {
        let text = self.rest()[1..].split_once('\'').ok_or(OtherLayout)?.0;
        self.at += text.len() + 2;
        // A quote in quotes is written twice.
        let is_simple = !self.rest().starts_with('\'') && self.is_ordinary(text);
        is_simple.then_some(text).ok_or(OtherLayout)
    }

    fn double_quoted(&mut self) -> Result<Cow<'a, str>, OtherLayout> {
        let mut text = Cow::Borrowed("");
        self.at += 1;
        loop {
            let length = memchr::memchr2(b'"', b'\\', self.rest().as_bytes()).ok_or(OtherLayout)?;
            let (piece, rest) = self.rest().split_at(length);
            if !self.is_ordinary(piece) {
                return Err(OtherLayout);
            }
            // Without an escape it stays a part of the line.
            text += piece;
            if rest.starts_with('"') {
                self.at += length + 1;
                // Two quotes are no simple end.
                return if self.rest().starts_with('"') { Err(OtherLayout) } else { Ok(text) };
            }
            let escaped = rest.get(1..2).filter(|escaped| matches!(*escaped, "\"" | "\\")).ok_or(OtherLayout)?;
            text += escaped;
            self.at += length + 2;
        }
    }

    /// Whether this piece of the line has ordinary characters alone.
    fn is_ordinary(&self, text: &str) -> bool {
        if self.is_ascii {
            text.bytes().all(|byte| byte >= b' ' && byte != b'\\' && byte != 0x7f)
        } else {
            text.chars().all(is_ordinary)
        }
    }

    fn brackets(&mut self) -> Result<Vec<SimpleNode<'a>>, OtherLayout> {
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
        Ok(items)
    }

    pub(super) fn braces(&mut self, depth: usize) -> Result<Vec<SimpleEntry<'a>>, OtherLayout> {
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
            entries.push(SimpleEntry { key, key_position, node });
            self.skip_blanks();
        }
        Ok(entries)
    }

    fn comma(&mut self) -> Result<(), OtherLayout> {
        self.demand(", ")?;
        self.skip_blanks();
        Ok(())
    }

    /// A key in braces: a word or a text in double quotes.
    fn flow_key(&mut self) -> Result<&'a str, OtherLayout> {
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
        Ok(key)
    }
}

/// A character that stands for itself between quotes, whatever line ends and escapes a parser knows.
fn is_ordinary(character: char) -> bool {
    character != '\\' && !character.is_control() && !matches!(character, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

fn blanks(text: &str) -> usize {
    text.bytes().position(|byte| byte != b' ').unwrap_or(text.len())
}

pub(super) fn is_blank(text: &str) -> bool {
    blanks(text) == text.len()
}

/// An empty line or a comment. A comment must be made of ordinary characters, too.
pub(super) fn is_remark(line: &str) -> bool {
    let text = &line[blanks(line)..];
    text.is_empty()
        || (text.starts_with('#') && text.chars().all(|character| is_ordinary(character) || character == '\\'))
}
