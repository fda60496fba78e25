//! The keys and indices that lead to a value of a file. Most are never shown, so their text is made only when one is.

use std::fmt;
use std::rc::Rc;

use super::quoted;

/// For example `routes[2].upstream`; empty for the file as a whole.
#[derive(Clone, Default)]
pub(crate) struct KeyPath<'a>(Option<Rc<(KeyPath<'a>, Step<'a>)>>);

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> KeyPath<'a> {
    pub(super) fn key(&self, key: &'a str) -> Self {
        Self(Some(Rc::new((self.clone(), Step::Key(key)))))
    }

    pub(super) fn index(&self, index: usize) -> Self {
        Self(Some(Rc::new((self.clone(), Step::Index(index)))))
    }
}

impl fmt::Display for KeyPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((before, step)) = self.0.as_deref() else { return Ok(()) };
        before.fmt(f)?;
        let is_plain = |key: &str| key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-*".contains(&b));
        match step {
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) if !is_plain(key) => write!(f, "[{}]", quoted(key)),
            Step::Key(key) if before.0.is_none() => f.write_str(key),
            Step::Key(key) => write!(f, ".{key}"),
        }
    }
}
