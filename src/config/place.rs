//! How the compiler speaks of places and values of a file.

use std::fmt;

use super::nearest::nearest;

/// The way to a value: `routes[2].upstream`.
#[derive(Debug, Clone, Default)]
pub(super) struct Place(Vec<Step>);

#[derive(Debug, Clone)]
pub(super) enum Step {
    /// A key that Callgate knows.
    Key(&'static str),
    /// A key that the operator chose, or misspelt.
    Name(String),
    Index(usize),
}

impl Place {
    pub(super) fn then(&self, step: Step) -> Self {
        let mut steps = Vec::with_capacity(self.0.len() + 1);
        steps.extend_from_slice(&self.0);
        steps.push(step);
        Self(steps)
    }

    /// The same for every name and index: `routes[].upstream`, `plans.*.limits`.
    pub(super) fn pattern(&self) -> String {
        let steps = self.0.iter().map(|step| match step {
            Step::Key(key) => Step::Key(key),
            Step::Name(_) => Step::Key("*"),
            Step::Index(_) => Step::Key("[]"),
        });
        Self(steps.collect()).to_string().replace(".[]", "[]")
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            let dot = if index > 0 { "." } else { "" };
            match step {
                Step::Key(key) => write!(f, "{dot}{key}")?,
                Step::Name(name) if name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-*".contains(&b)) => {
                    write!(f, "{dot}{name}")?;
                }
                Step::Name(name) => write!(f, "[{}]", shown(name))?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A misspelt name is compared with so many: files with thousands of names and of mistakes end quickly, too.
const COMPARED: usize = 200;

/// ` (did you mean "calls"?)`, or else what is known.
pub(super) fn hint<'k>(name: &str, known: impl Iterator<Item = &'k str> + Clone) -> String {
    if let Some(near) = nearest(name, known.clone().take(COMPARED)) {
        return format!(" (did you mean \"{near}\"?)");
    }
    const SHOWN: usize = 16;
    let mut names: Vec<&str> = known.take(SHOWN + 1).collect();
    if names.is_empty() {
        return String::new();
    }
    if names.len() > SHOWN {
        names[SHOWN] = "…";
    }
    format!(" (known here: {})", names.join(", "))
}

/// A text from the file in quotes, unless it is long or looks like a URL with a password.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 60;
    if text.contains('@') {
        "(not repeated here)".to_owned()
    } else if text.chars().nth(LONGEST).is_some() {
        format!("{:?}…", text.chars().take(LONGEST).collect::<String>())
    } else {
        format!("{text:?}")
    }
}
