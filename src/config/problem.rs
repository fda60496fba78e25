//! What is wrong with a file, and where: `PATH:LINE:COLUMN: yaml.path[2].key: what is wrong (remedy)`.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

/// Whether a problem keeps the file from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The file can't be used.
    Error,
    /// The file can be used, but somebody should look at this.
    Warning,
}

/// One thing that is wrong with a configuration or token file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named to [`super::load`].
    pub file: Arc<Path>,
    /// The line, from 1; 0 when the problem is the file itself.
    pub line: usize,
    /// The column in characters, from 1; 0 when the problem is the file itself.
    pub column: usize,
    /// The keys that lead to the value, for example `routes[2].upstream`; empty for the file as a whole.
    pub path: String,
    /// What is wrong and, in parentheses, what to do about it. It repeats no secret.
    pub message: String,
    /// An error or a warning.
    pub severity: Severity,
}

impl Problem {
    /// `file:line:column:`, or `file:` where the problem is the file itself.
    pub(crate) fn place(&self) -> String {
        let file = self.file.display();
        if self.line > 0 { format!("{file}:{}:{}:", self.line, self.column) } else { format!("{file}:") }
    }

    /// What follows the place, without the severity.
    pub(crate) fn text(&self) -> String {
        let path = if self.path.is_empty() { String::new() } else { format!("{}: ", self.path) };
        path + &self.message
    }

    /// Where and what, for a line that has a level of its own.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.place(), self.text())
    }

    /// For programs; errors and warnings are told apart by where they stand.
    pub(crate) fn to_json(&self) -> Value {
        let file = self.file.display().to_string();
        json!({ "file": file, "line": self.line, "column": self.column, "path": self.path, "message": self.message })
    }
}

/// Errors and warnings, parted, for programs.
pub(crate) fn parted_json(problems: &[Problem]) -> [Value; 2] {
    let of = |severity| problems.iter().filter(|it| it.severity == severity).map(Problem::to_json).collect();
    [of(Severity::Error), of(Severity::Warning)]
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = if self.severity == Severity::Warning { " warning:" } else { "" };
        write!(f, "{}{severity} {}", self.place(), self.text())
    }
}

/// Everything that is wrong with a file, in the order of the file, with at least one error.
#[derive(Debug, Clone)]
pub struct Problems(pub(super) Vec<Problem>);

impl Problems {
    /// Errors and warnings, in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Problems {}

/// A text from a file in quotes, unless it is long or looks like a URL with a password.
pub(super) fn quoted(text: &str) -> String {
    const MAX_CHARS: usize = 60;
    if text.contains('@') {
        "(not repeated here)".to_owned()
    } else if text.chars().nth(MAX_CHARS).is_some() {
        format!("{:?}…", text.chars().take(MAX_CHARS).collect::<String>())
    } else {
        format!("{text:?}")
    }
}
