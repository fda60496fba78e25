//! The token file, read: its text, its state on the disk, its records.

use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::fast_path::fold_good;
use super::parse::{Placed, parse, parse_with};
use crate::accounts::read_error;
use crate::tokens::error::{FileError, Result};
use crate::tokens::plans::Plans;
use crate::tokens::record::Record;

/// The token file as those see it who change it.
pub(in crate::tokens) struct TokenFile {
    pub(in crate::tokens) path: PathBuf,
    pub(in crate::tokens) plans: Arc<Plans>,
    /// Bytes of the file of usage when it was merged last.
    pub(super) merged_usage_len: AtomicU64,
    /// The same of that by the hour.
    pub(super) merged_hours_len: AtomicU64,
}

impl TokenFile {
    pub(in crate::tokens) fn new(path: &Path, plans: Arc<Plans>) -> Self {
        Self { path: path.to_owned(), plans, merged_usage_len: AtomicU64::new(0), merged_hours_len: AtomicU64::new(0) }
    }

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

/// Bytes of a token file that are read at one time.
const READ_BUFFER: usize = 64 << 10;

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

/// A token file that was opened to be served.
pub(crate) struct ServedFile {
    path: PathBuf,
    file: File,
    /// What it looked like then. If it is written while it is read, it will look different.
    pub(crate) stamp: Stamp,
}

impl ServedFile {
    /// # Errors
    /// [`FileError::Io`]
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        let failed = |error| FileError::Io { path: path.to_owned(), error };
        let file = File::open(path).map_err(|error| failed(read_error(path, error)))?;
        let stamp = Stamp::of(&file.metadata().map_err(failed)?);
        Ok(Self { path: path.to_owned(), file, stamp })
    }

    /// Adds all records to what `new` makes, in the order of the file. Starts anew if the file turns out to be one that must be read as a
    /// whole.
    ///
    /// # Errors
    /// [`FileError`]
    pub(crate) fn fold<T>(
        mut self,
        plans: &Plans,
        new: impl Fn() -> T,
        mut add: impl FnMut(&mut T, Record),
    ) -> Result<T, FileError> {
        let mut count = 0;
        let lines = BufReader::with_capacity(READ_BUFFER, &self.file);
        let folded = fold_good(lines, plans, new(), |all, record| {
            count += 1;
            add(all, record);
        });
        if let Some(all) = folded.filter(|_| count > 0) {
            return Ok(all);
        }
        let (mut text, mut all) = (String::new(), new());
        let read = self.file.rewind().and_then(|()| self.file.read_to_string(&mut text));
        read.map_err(|error| FileError::Io { path: self.path.clone(), error })?;
        let records = read_records(&self.path, &text, plans)?;
        if records.is_empty() && is_empty(&text) {
            return Err(FileError::Empty(self.path));
        }
        records.into_iter().for_each(|record| add(&mut all, record));
        Ok(all)
    }
}

/// Whether a file without tokens doesn't even have an empty list of them.
pub(super) fn is_empty(text: &str) -> bool {
    !text.lines().any(|line| line.split('#').next().is_some_and(|text| text.contains('[')))
}

pub(super) fn read_records(path: &Path, text: &str, plans: &Plans) -> Result<Vec<Record>, FileError> {
    parse_with(path, text, plans, |record, _| record).map_err(FileError::Invalid)
}
