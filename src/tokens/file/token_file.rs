//! The token file of those who edit it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::parse::{Placed, parse};
use crate::config::Config;
use crate::tokens::error::{EditError, FileError};
use crate::tokens::plans::Plans;
use crate::tokens::record::Record;

/// The token file as those see it who change it.
pub struct TokenFile {
    pub(super) path: PathBuf,
    pub(super) plans: Plans,
}

impl TokenFile {
    /// Names the file; nothing is read yet.
    #[must_use]
    pub fn new(config: &Config, path: &Path) -> Self {
        Self { path: path.to_owned(), plans: Plans::new(config) }
    }

    /// All records, in the order of the file.
    ///
    /// # Errors
    /// [`EditError::File`]
    pub(in crate::tokens) fn list(&self) -> Result<Vec<Record>, EditError> {
        let (_, placed) = self.load(&self.path)?;
        Ok(placed.into_iter().map(|placed| placed.record).collect())
    }

    /// A file that isn't there is empty.
    pub(super) fn load(&self, path: &Path) -> Result<(String, Vec<Placed>), EditError> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other.map_err(|source| FileError::Io { path: path.to_owned(), source })?,
        };
        let placed = parse(path, &text, &self.plans).map_err(FileError::Invalid)?;
        Ok((text, placed))
    }
}
