//! The token file, read: its text, its state on the disk, its records.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::parse::{Placed, parse, parse_with};
use crate::accounts::read_error;
use crate::tokens::error::{FileError, Result};
use crate::tokens::plans::Plans;
use crate::tokens::record::Record;

/// The token file as those see it who change it.
pub(in crate::tokens) struct TokenFile {
    pub(in crate::tokens) path: PathBuf,
    pub(in crate::tokens) plans: Arc<Plans>,
}

impl TokenFile {
    /// All records, in the order of the file.
    pub(in crate::tokens) fn list(&self) -> Result<Vec<Record>> {
        Ok(read_records(&self.path, &text_of(&self.path)?, &self.plans)?)
    }

    pub(super) fn load(&self, path: &Path) -> Result<(String, Vec<Placed>), FileError> {
        let text = text_of(path)?;
        let placed = parse(path, &text, &self.plans).map_err(FileError::Invalid)?;
        Ok((text, placed))
    }
}

/// A file that isn't there is empty.
fn text_of(path: &Path) -> Result<String, FileError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other.map_err(|error| FileError::Io { path: path.to_owned(), error: read_error(path, error) }),
    }
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// `None` if there is no such file.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        path.metadata().ok().map(|metadata| Self::of(&metadata))
    }

    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A file's text and what it looked like, from one handle. A file that is being written while it is read is read again later: its
/// stamp will differ from the one that is returned.
pub(crate) fn load(path: &Path) -> io::Result<(String, Stamp)> {
    let mut file = File::open(path).map_err(|error| read_error(path, error))?;
    let stamp = Stamp::of(&file.metadata()?);
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok((text, stamp))
}

/// The records in a text that came from the file at `path`, in the order of the file.
///
/// # Errors
/// [`FileError::Invalid`], [`FileError::Empty`]
pub(crate) fn read_served_records(path: &Path, text: &str, plans: &Plans) -> Result<Vec<Record>, FileError> {
    let records = read_records(path, text, plans)?;
    if records.is_empty() && is_empty(text) { Err(FileError::Empty(path.to_owned())) } else { Ok(records) }
}

/// Whether a file without tokens doesn't even have an empty list of them.
pub(super) fn is_empty(text: &str) -> bool {
    !text.lines().any(|line| line.split('#').next().is_some_and(|text| text.contains('[')))
}

pub(super) fn read_records(path: &Path, text: &str, plans: &Plans) -> Result<Vec<Record>, FileError> {
    parse_with(path, text, plans, |record, _| record).map_err(FileError::Invalid)
}
