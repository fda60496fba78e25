//! The values of the simple layout, as they are in their lines.

use std::borrow::Cow;
use std::io;

use crate::config::Position;
use crate::config::yaml::{YamlEntry, YamlNode, YamlValue, plain};

/// The text has another layout from here on.
pub(crate) struct OtherLayout;

impl From<io::Error> for OtherLayout {
    /// Whoever reads the text as a whole meets the error again, and reports it.
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// A value as it is in its line.
pub(crate) enum SimpleValue<'a> {
    /// A scalar without quotes.
    Plain(&'a str),
    /// A text that was in quotes.
    Quoted(Cow<'a, str>),
    List(Vec<SimpleNode<'a>>),
    Map(Vec<SimpleEntry<'a>>),
}

/// A value and its position.
pub(crate) struct SimpleNode<'a> {
    pub(super) position: Position,
    pub(crate) value: SimpleValue<'a>,
}

/// A key and its value.
pub(crate) struct SimpleEntry<'a> {
    pub(crate) key: &'a str,
    pub(super) key_position: Position,
    pub(crate) node: SimpleNode<'a>,
}

impl SimpleNode<'_> {
    fn into_yaml(self) -> YamlNode {
        let value = match self.value {
            SimpleValue::Plain(text) => plain(text),
            SimpleValue::Quoted(text) => YamlValue::Text(text.into_owned()),
            SimpleValue::List(items) => YamlValue::List(items.into_iter().map(Self::into_yaml).collect()),
            SimpleValue::Map(entries) => YamlValue::Map(entries.into_iter().map(SimpleEntry::into_yaml).collect()),
        };
        YamlNode { position: self.position, value }
    }
}

impl SimpleEntry<'_> {
    pub(super) fn into_yaml(self) -> YamlEntry {
        YamlEntry { key: self.key.to_owned(), key_position: self.key_position, node: self.node.into_yaml() }
    }
}
