//! YAML as a tree of nodes that know their place: every question about the file's shape is then asked in one manner.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Location, Spanned};

/// A node's line and column, from 1.
pub(super) type Place = (usize, usize);

/// One node.
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) kind: Kind,
    /// The bytes of a plain scalar in the file's text.
    bytes: std::ops::Range<usize>,
}

/// What a node is.
pub(super) enum Kind {
    Null,
    Bool(bool),
    /// An unquoted number; its text is in the file.
    Number,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Place, Node)>),
}

impl Node {
    /// A scalar's text. Numbers are texts too, letter by letter: an id may be `017`.
    pub(super) fn text<'a>(&'a self, source: &'a str) -> Option<&'a str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            Kind::Number => source.get(self.bytes.clone()).map(str::trim_end),
            Kind::Null | Kind::Bool(_) | Kind::List(_) | Kind::Map(_) => None,
        }
    }
}

/// Parses a document; an empty one is [`Kind::Null`].
///
/// # Errors
/// The place and text of the first error of syntax. The text doesn't quote the file.
pub(super) fn parse(source: &str) -> Result<Node, (Place, String)> {
    // The default bounds a configuration; this is 300,000 tokens.
    let budget = serde_yaml::budget! { max_nodes: 10_000_000, max_events: 40_000_000 };
    let options = serde_yaml::options! { budget: budget, with_snippet: false };
    serde_yaml::from_str_with_options(source, options).map_err(|error| {
        let place = error.location().map_or((1, 1), place_of);
        (place, error.without_snippet().to_string())
    })
}

fn place_of(location: Location) -> Place {
    let place = [location.line(), location.column()].map(|number| usize::try_from(number).unwrap_or(usize::MAX).max(1));
    (place[0], place[1])
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Kind>::deserialize(deserializer)?;
        let span = spanned.defined.span();
        let start = span.byte_offset().unwrap_or(0) as usize;
        let bytes = start..start + span.byte_len().unwrap_or(0) as usize;
        Ok(Self { place: place_of(spanned.defined), kind: spanned.value, bytes })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Kind, E> {
        Ok(Kind::Number)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Kind, E> {
        Ok(Kind::Number)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Kind, E> {
        Ok(Kind::Number)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Text(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Kind, E> {
        Ok(Kind::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Kind, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Kind::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            entries.push((key.value, place_of(key.defined), map.next_value()?));
        }
        Ok(Kind::Map(entries))
    }
}
