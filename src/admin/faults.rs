//! What is wrong with the fields of a request: all of it, by field.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::problem::{Problem, sentence};
use crate::config::nearest;

/// Faults that are told at once; whoever sends more has misunderstood something else.
const MOST: usize = 50;
/// Characters of a name that are repeated.
const LONGEST: usize = 80;

/// What is wrong, by field.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    by_field: BTreeMap<String, Vec<String>>,
    count: usize,
}

impl Faults {
    /// Adds a fault; `message` is a sentence without its capital and its full stop.
    pub(super) fn add(&mut self, field: &str, message: String) {
        self.count += 1;
        if self.count <= MOST {
            self.by_field.entry(shortened(field)).or_default().push(message);
        }
    }

    /// Adds that nobody knows such a field.
    pub(super) fn unknown(&mut self, field: &str, known: &[&'static str]) {
        let last = field.rsplit('.').next().unwrap_or(field);
        let near = nearest(last, known.iter().copied()).map(|near| format!(" (did you mean \"{near}\"?)"));
        self.add(field, format!("{} is not known here{}", shortened(field), near.unwrap_or_default()));
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// An error, if there is any.
    pub(super) fn done(self) -> Result<(), Problem> {
        if self.count == 0 { Ok(()) } else { Err(Problem::Invalid(self)) }
    }

    /// The first, and how many there are besides.
    pub(super) fn summary(&self) -> String {
        let first = self.by_field.values().flatten().next().map_or("something is wrong", String::as_str);
        match self.count {
            0 | 1 => sentence(first),
            2 => sentence(&format!("{first} (and 1 more error)")),
            count => sentence(&format!("{first} (and {} more errors)", count - 1)),
        }
    }

    /// `{"field": ["message", …]}`.
    pub(super) fn into_json(self) -> Value {
        json!(self.by_field)
    }
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= LONGEST { name.to_owned() } else { name.chars().take(LONGEST).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_summed_up_and_bounded() {
        let mut faults = Faults::default();
        faults.add("name", "name must be given".to_owned());
        assert_eq!(faults.summary(), "Name must be given.");
        faults.unknown("plann", &["plan"]);
        assert_eq!(faults.summary(), "Name must be given (and 1 more error).");
        for number in 0..1_000 {
            faults.unknown(&format!("{}{number}", "x".repeat(1_000)), &["plan"]);
        }
        assert_eq!(faults.summary(), "Name must be given (and 1001 more errors).");
        let told = faults.into_json();
        assert_eq!(told["plann"][0], "plann is not known here (did you mean \"plan\"?)");
        assert!(told.to_string().len() < 20_000);
    }
}
