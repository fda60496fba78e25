//! Conditions of a route beside its path and method, and the path that the upstream sees.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

/// A host that requests may be for, in lower case, without a port or a final dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This one.
    Exact(Arc<str>),
    /// Every one that ends like this, for example `.example.com`, with at least one label before it.
    Suffix(Arc<str>),
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Suffix(end) => write!(f, "*{end}"),
        }
    }
}

/// A header that a request must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Its name.
    pub name: HeaderName,
    /// The value that one of its lines must have; `None`: any.
    pub value: Option<HeaderValue>,
}

/// The path that the upstream sees in place of the client's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewrite {
    /// Without this at its beginning: fixed text that starts with a slash and does not end with one.
    StripPrefix(Arc<str>),
    /// The concatenation of these.
    Template(Arc<[Piece]>),
}

/// A piece of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Fixed text.
    Text(Arc<str>),
    /// The text of this parameter of the route's pattern.
    Parameter(Arc<str>),
}
