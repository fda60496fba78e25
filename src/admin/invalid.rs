//! What is wrong with the fields of a request: all of it, by field.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::config::did_you_mean;
use crate::tokens::shortened;

/// Errors that are reported at once.
const MAX_ERRORS: usize = 50;

/// The error messages of each field, as JSON `{"field": ["message", …]}`.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct InvalidFields {
    by_field: BTreeMap<String, Vec<String>>,
    #[serde(skip)]
    count: usize,
}

impl InvalidFields {
    /// Adds an error; `message` is a sentence without its capital and its full stop.
    pub(super) fn add(&mut self, field: &str, message: String) {
        self.count += 1;
        if self.count <= MAX_ERRORS {
            self.by_field.entry(shortened(field)).or_default().push(message);
        }
    }

    pub(super) fn add_unknown(&mut self, field: &str, known: &[&'static str]) {
        let hint = did_you_mean(field, known.iter().copied());
        self.add(field, format!("{} is not known here{hint}", shortened(field)));
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The first error, and how many more there are.
    pub(super) fn summary(&self) -> String {
        let first = self.by_field.values().flatten().next().map_or("something is wrong", String::as_str);
        match self.count {
            0 | 1 => sentence(first),
            2 => sentence(&format!("{first} (and 1 more error)")),
            count => sentence(&format!("{first} (and {} more errors)", count - 1)),
        }
    }
}

/// With a capital and a full stop.
pub(super) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let capital: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{capital}{}.", letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_summed_up_and_bounded() {
        let mut invalid = InvalidFields::default();
        invalid.add("name", "name must be given".to_owned());
        assert_eq!(invalid.summary(), "Name must be given.");
        invalid.add_unknown("plann", &["plan"]);
        assert_eq!(invalid.summary(), "Name must be given (and 1 more error).");
        for number in 0..1_000 {
            invalid.add_unknown(&format!("{}{number}", "x".repeat(1_000)), &["plan"]);
        }
        assert_eq!(invalid.summary(), "Name must be given (and 1001 more errors).");
        let json = serde_json::to_value(invalid).unwrap();
        assert_eq!(json["plann"][0], "plann is not known here (did you mean \"plan\"?)");
        assert!(json.to_string().len() < 20_000);
    }
}
