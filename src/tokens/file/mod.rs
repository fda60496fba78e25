//! The token file of the memory store: what is in it, and how it is edited.

mod check;
mod edit;
mod exchange;
mod parse;
#[cfg(test)]
mod tests;
mod text;
mod trail;
mod usage;

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::plans::Plans;
use super::record::Record;
use crate::config::Problem;

pub use check::check_tokens;
pub use edit::{EditError, TokenFile};

/// Why a token file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system says no.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// What is in it is wrong: every problem, in the order of the file.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Problem>),
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
    pub(crate) fn of(metadata: &Metadata) -> Self {
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
    let mut file = File::open(path)?;
    let stamp = Stamp::of(&file.metadata()?);
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok((text, stamp))
}

/// The records in a text that came from the file at `path`, in the order of the file.
///
/// # Errors
/// [`FileError::Invalid`]
pub(crate) fn read_records(path: &Path, text: &str, plans: &Plans) -> Result<Vec<Record>, FileError> {
    let placed = parse::parse(path, text, plans).map_err(FileError::Invalid)?;
    Ok(placed.into_iter().map(|placed| placed.record).collect())
}
