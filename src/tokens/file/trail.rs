//! The audit trail beside a token file: a line of JSON for each entry.
//!
//! An entry is written before its change and taken back if the change fails. Only a process that is killed between the two leaves an entry
//! whose change was never made; the last line of the trail is the only one that this can be true of, at the time.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::atomic_replace::{LockedFile, beside};
use crate::tokens::audit::{Entry, TRAIL_LENGTH};
use crate::tokens::error::FileError;

/// What the trail's file is called, behind the token file's name.
pub(super) const ENDING: &str = ".audit";

#[derive(Serialize, Deserialize)]
struct TrailLine {
    /// Microseconds since 1970, more than in the line before.
    seq: u64,
    #[serde(flatten)]
    entry: Entry,
}

/// All entries of a trail's file, the oldest first. A line that can't be read (half written, or by a newer Callgate) is left out.
pub(super) fn read(path: &Path) -> Result<Vec<(u64, Entry)>, FileError> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other.map_err(|source| FileError::Io { path: path.to_owned(), source })?,
    };
    let read = |line: &str| serde_json::from_str::<TrailLine>(line).ok().map(|line| (line.seq, line.entry));
    Ok(text.lines().filter_map(read).collect())
}

/// Entries that were written, and can be taken back.
pub(super) struct Written {
    path: PathBuf,
    length: u64,
}

/// Writes entries, and forgets the oldest when there are a tenth too many.
pub(super) fn write(locked: &LockedFile, entries: &[Entry], now: SystemTime) -> Result<Written, FileError> {
    let path = beside(&locked.path, ENDING);
    let mut old = read(&path)?;
    if old.len() + entries.len() > TRAIL_LENGTH + TRAIL_LENGTH / 10 {
        old.drain(..(old.len() + entries.len()).saturating_sub(TRAIL_LENGTH).min(old.len()));
        let lines: String = old.iter().map(|(seq, entry)| line(*seq, entry)).collect();
        locked.replace(&path, &lines)?;
    }
    let last = old.last().map_or(0, |(seq, _)| *seq);
    let micros = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    let first = u64::try_from(micros).unwrap_or(u64::MAX).max(last + 1);
    let lines: String = (first..).zip(entries).map(|(seq, entry)| line(seq, entry)).collect();
    let failed = |source| FileError::Io { path: path.clone(), source };
    let length = append(locked, &path, &lines).map_err(failed)?;
    Ok(Written { path, length })
}

fn append(locked: &LockedFile, path: &Path, lines: &str) -> io::Result<u64> {
    let mut file = locked.append_to(path)?;
    let length = file.metadata()?.len();
    // A line that was cut off by a crash must not swallow this one.
    let separator = if length > 0 && !fs::read(path)?.ends_with(b"\n") { "\n" } else { "" };
    file.write_all(format!("{separator}{lines}").as_bytes())?;
    file.sync_all()?;
    Ok(length)
}

impl Written {
    /// Takes the entries back.
    pub(super) fn undo(self) {
        let file = fs::OpenOptions::new().write(true).open(&self.path);
        if let Err(error) = file.and_then(|file| file.set_len(self.length)) {
            tracing::error!("{}: an entry without its change stays in it: {error}", self.path.display());
        }
    }
}

fn line(seq: u64, entry: &Entry) -> String {
    let line = TrailLine { seq, entry: entry.clone() };
    serde_json::to_string(&line).expect("entries have only text keys") + "\n"
}
