//! The way to a value in a YAML file: `routes[2].upstream`.

use std::fmt;

use super::problem::quoted;

/// The keys and indices that lead to a value.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyPath(Vec<Segment>);

#[derive(Debug, Clone)]
pub(super) enum Segment {
    /// A key that Callgate knows.
    Key(&'static str),
    /// A key that the operator chose, or misspelt.
    Name(String),
    Index(usize),
}

impl KeyPath {
    pub(super) fn child(&self, segment: Segment) -> Self {
        let mut segments = Vec::with_capacity(self.0.len() + 1);
        segments.extend_from_slice(&self.0);
        segments.push(segment);
        Self(segments)
    }

    /// The same for every name and index: `routes[].upstream`, `plans.*.limits`.
    pub(super) fn pattern(&self) -> String {
        let segments = self.0.iter().map(|segment| match segment {
            Segment::Key(key) => Segment::Key(key),
            Segment::Name(_) => Segment::Key("*"),
            Segment::Index(_) => Segment::Key("[]"),
        });
        Self(segments.collect()).to_string().replace(".[]", "[]")
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.0.iter().enumerate() {
            let dot = if index > 0 { "." } else { "" };
            match segment {
                Segment::Key(key) => write!(f, "{dot}{key}")?,
                Segment::Name(name) if name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-*".contains(&b)) => {
                    write!(f, "{dot}{name}")?;
                }
                Segment::Name(name) => write!(f, "[{}]", quoted(name))?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
