//! What is wrong with a configuration file, and where: `PATH:LINE:COLUMN: yaml.path[2].key: what is wrong (remedy)`.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Whether a problem keeps the configuration from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It does.
    Error,
    /// It does not, but somebody should look.
    Warning,
}

/// One thing that is wrong with a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named to [`super::load`].
    pub file: Arc<Path>,
    /// The line, from 1; 0 when the problem is the file itself.
    pub line: usize,
    /// The column in characters, from 1; 0 when the problem is the file itself.
    pub column: usize,
    /// The place in the YAML tree, for example `routes[2].upstream`; empty for the file as a whole.
    pub path: String,
    /// What is wrong and, in parentheses, what to do about it. It repeats no secret.
    pub message: String,
    /// An error or a warning.
    pub severity: Severity,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if self.severity == Severity::Warning {
            f.write_str(" warning:")?;
        }
        if !self.path.is_empty() {
            write!(f, " {}:", self.path)?;
        }
        write!(f, " {}", self.message)
    }
}

/// Everything that is wrong with a configuration file, in the order of the file, at least one error among it.
#[derive(Debug, Clone)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Takes problems in any order.
    pub(super) fn new(mut all: Vec<Problem>) -> Self {
        sort(&mut all);
        Self(all)
    }

    /// Errors and warnings, in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Puts problems into the order of the file; of two at one place, the one found first comes first.
pub(super) fn sort(problems: &mut [Problem]) {
    problems.sort_by_key(|problem| (problem.line, problem.column));
}
