//! A map whose keys Callgate knows: each key that is read is one of them.

use std::cell::RefCell;

use super::yaml::{Position, YamlEntry, YamlNode, YamlValue};
use super::{Field, hint, nearest};

static ABSENT: YamlNode = YamlNode { position: Position::WHOLE_FILE, value: YamlValue::Null };

/// A map. Once everything is read and it is dropped, it reports the keys that nobody looked for, and those that must be there
/// and are not. So all its keys must be read, whatever is wrong with some of them.
pub(crate) struct Section<'a> {
    field: Field<'a>,
    entries: &'a [YamlEntry],
    /// The keys that were looked for.
    known: RefCell<Vec<&'static str>>,
    /// Keys that must be there and are not, and what to do about that.
    missing: RefCell<Vec<(&'static str, String)>>,
}

impl<'a> Field<'a> {
    /// This value as a map of which all keys are known.
    pub(crate) fn section(&self) -> Section<'a> {
        Section { field: self.clone(), entries: self.entries(), known: RefCell::default(), missing: RefCell::default() }
    }
}

impl<'a> Section<'a> {
    /// The value of a key; `None` when it is absent or empty.
    pub(crate) fn get(&self, key: &'static str) -> Option<Field<'a>> {
        Some(self.field_of(key)).filter(|field| !field.is_null())
    }

    /// The value of a key, or an absent one at the position of the section.
    pub(crate) fn field_of(&self, key: &'static str) -> Field<'a> {
        if !self.known.borrow().contains(&key) {
            self.known.borrow_mut().push(key);
        }
        match self.entries.iter().find(|entry| entry.key == key) {
            Some(entry) => self.field.value(entry),
            None => Field { path: self.field.path.key(key), node: &ABSENT, ..self.field.clone() },
        }
    }

    /// The value of a key that must be there.
    pub(crate) fn require(&self, key: &'static str, remedy: &str) -> Option<Field<'a>> {
        let field = self.get(key);
        if field.is_none() {
            self.missing.borrow_mut().push((key, remedy.to_owned()));
        }
        field
    }

    /// The value of a key as `read` understands it; `None` when it is absent, and when `read` reported it.
    pub(crate) fn optional<T>(&self, key: &'static str, read: impl FnOnce(&Field<'a>) -> Option<T>) -> Option<T> {
        self.get(key).and_then(|field| read(&field))
    }

    /// The value of a key as `read` understands it, or its default; also the default when `read` reported it.
    pub(crate) fn or<T>(&self, key: &'static str, default: T, read: impl FnOnce(&Field<'a>) -> Option<T>) -> T {
        self.optional(key, read).unwrap_or(default)
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        // Something else than a map was reported as that.
        if !self.field.is_map() && !self.field.is_null() {
            return;
        }
        let known = self.known.take();
        let known = known.iter().copied();
        let unknown: Vec<_> = self.entries.iter().filter(|entry| !known.clone().any(|key| key == entry.key)).collect();
        for entry in &unknown {
            self.field.key(entry).error(format!("unknown key{}", hint(&entry.key, known.clone())));
        }
        for (key, remedy) in self.missing.take() {
            // A misspelt key was reported above, with this one as its hint.
            let is_misspelt = unknown.iter().any(|entry| nearest(&entry.key, known.clone()) == Some(key));
            if !is_misspelt {
                self.field_of(key).error(format!("is missing ({remedy})"));
            }
        }
    }
}
