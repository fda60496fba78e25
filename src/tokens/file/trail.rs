//! The audit trail beside a token file: a line of JSON for each entry, of what was done and of nothing else.
//!
//! Entries wait in a file of their own while their change is made. They name the text that the token file has after it: so whoever comes
//! next, even after a crash, knows whether they are true.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::atomic_replace::{LockedFile, beside};
use crate::accounts::read_error;
use crate::tokens::audit::{Entry, TRAIL_LENGTH};
use crate::tokens::error::FileError;
use crate::tokens::token::TokenHash;

/// What the trail's file is called, behind the token file's name.
const ENDING: &str = ".audit";
/// The same for the file of entries whose change is being made.
const PENDING: &str = ".audit.pending";

#[derive(Serialize, Deserialize)]
struct TrailLine {
    /// Microseconds since 1970, more than in the line before.
    seq: u64,
    #[serde(flatten)]
    entry: Entry,
}

/// Entries whose change is being made.
#[derive(Serialize, Deserialize)]
struct Pending {
    /// The SHA-256 of the token file's text after the change.
    sha256: String,
    lines: Vec<TrailLine>,
}

impl Pending {
    /// The entries that wait beside a token file; `None` if none do.
    fn read(token_file: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(beside(token_file, PENDING)).ok()?).ok()
    }

    /// Whether their change was made.
    fn is_made(&self, token_file: &Path) -> bool {
        fs::read_to_string(token_file).is_ok_and(|text| TokenHash::of(&text).to_hex() == self.sha256)
    }
}

/// All entries beside a token file, the oldest first.
pub(super) fn read(token_file: &Path) -> Result<Vec<(u64, Entry)>, FileError> {
    let mut lines = read_lines(&beside(token_file, ENDING))?;
    if let Some(pending) = Pending::read(token_file).filter(|pending| pending.is_made(token_file)) {
        lines.extend(newer(pending.lines, &lines));
    }
    Ok(lines.into_iter().map(|line| (line.seq, line.entry)).collect())
}

/// A line that can't be read (half written, or by a newer Callgate) is left out.
fn read_lines(path: &Path) -> Result<Vec<TrailLine>, FileError> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other.map_err(|error| FileError::Io { path: path.to_owned(), error: read_error(path, error) })?,
    };
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// Those of `lines` that are not in the trail.
fn newer(lines: Vec<TrailLine>, trail: &[TrailLine]) -> Vec<TrailLine> {
    let last = trail.last().map_or(0, |line| line.seq);
    lines.into_iter().filter(|line| line.seq > last).collect()
}

/// Writes down the entries of a change that is about to be made: the token file will have the text `new`.
pub(super) fn prepare(locked: &LockedFile, entries: &[Entry], new: &str, now: SystemTime) -> Result<(), FileError> {
    let lines = numbered(&read_lines(&beside(&locked.path, ENDING))?, entries, now);
    let pending = Pending { sha256: TokenHash::of(new).to_hex(), lines };
    let text = serde_json::to_string(&pending).expect("entries have only text keys");
    locked.replace(&beside(&locked.path, PENDING), &text)
}

/// Takes pending entries to the trail if their change was made, and forgets them otherwise.
pub(super) fn settle(locked: &LockedFile) -> Result<(), FileError> {
    if let Some(pending) = Pending::read(&locked.path).filter(|pending| pending.is_made(&locked.path)) {
        let trail = read_lines(&beside(&locked.path, ENDING))?;
        let lines = newer(pending.lines, &trail);
        write(locked, trail, &lines)?;
    }
    locked.remove(&beside(&locked.path, PENDING))
}

/// Adds an entry of what was done elsewhere.
pub(super) fn add(locked: &LockedFile, entry: &Entry, now: SystemTime) -> Result<(), FileError> {
    let trail = read_lines(&beside(&locked.path, ENDING))?;
    let lines = numbered(&trail, std::slice::from_ref(entry), now);
    write(locked, trail, &lines)
}

fn numbered(trail: &[TrailLine], entries: &[Entry], now: SystemTime) -> Vec<TrailLine> {
    let last = trail.last().map_or(0, |line| line.seq);
    let micros = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    let first = u64::try_from(micros).unwrap_or(u64::MAX).max(last + 1);
    (first..).zip(entries.iter().cloned()).map(|(seq, entry)| TrailLine { seq, entry }).collect()
}

/// Writes new lines behind the old ones, and forgets the oldest when there are a tenth too many.
fn write(locked: &LockedFile, mut old: Vec<TrailLine>, new: &[TrailLine]) -> Result<(), FileError> {
    let path = beside(&locked.path, ENDING);
    let too_many = (old.len() + new.len()).saturating_sub(TRAIL_LENGTH);
    if too_many > TRAIL_LENGTH / 10 {
        old.drain(..too_many.min(old.len()));
        locked.replace(&path, &text_of(&old))?;
    }
    append(locked, &path, &text_of(new)).map_err(|error| FileError::Io { path, error })
}

fn append(locked: &LockedFile, path: &Path, lines: &str) -> io::Result<()> {
    let mut file = locked.append_to(path)?;
    let length = file.metadata()?.len();
    // A line that was cut off by a crash must not swallow this one.
    let separator = if length > 0 && !fs::read(path)?.ends_with(b"\n") { "\n" } else { "" };
    file.write_all(format!("{separator}{lines}").as_bytes())?;
    file.sync_all()
}

fn text_of(lines: &[TrailLine]) -> String {
    let line = |line| serde_json::to_string(line).expect("entries have only text keys") + "\n";
    lines.iter().map(line).collect()
}
