//! The use of the tokens of a file, in another file beside it: what changes each minute is not for a file that people edit.
//!
//! Each line is a JSON object of tokens and how they were used; what several lines say of one token adds up. A minute's use is
//! appended, which costs as much as it is long. The lines are merged when the file has doubled since they were merged last, and when
//! the token file has changed: tokens that are in it no more are forgotten then.

mod append;
mod hours;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::atomic_replace::{LockedFile, beside, target};
use super::token_file::{ServedFile, TokenFile};
use crate::accounts::read_error;
use crate::tokens::error::{FileError, Result};
use crate::tokens::record::{Record, Usage};
use crate::tokens::usage_counts::NewUsage;

use append::append;

pub(super) use hours::read as read_hours;

/// What the file is called, behind the token file's name.
const ENDING: &str = ".usage.log";
/// The file of older versions, one object. It is read and never written: an older process that drains may write it.
const OLD_ENDING: &str = ".usage";
/// Tokens in a line, so that no long one need be in memory.
const LINE_TOKENS: usize = 256;
/// A file of this many bytes, and twice those after its last merge, is merged.
const MIN_MERGED_LEN: u64 = 64 << 10;

pub(super) type Usages = BTreeMap<String, Usage>;

/// The use of all tokens of the token file at `path`. A file that can't be read tells of none: it is no reason to show no tokens.
pub(super) fn read(path: &Path) -> Usages {
    let path = target(path);
    let mut usages = load(&beside(&path, ENDING)).unwrap_or_default();
    let old = load(&beside(&path, OLD_ENDING)).unwrap_or_default();
    old.into_iter().for_each(|(id, usage)| add(&mut usages, id, usage));
    usages
}

/// A line that is damaged, and a file that is not there, tell of none. A file that may not be read is an error, so that it is not
/// replaced.
fn load(path: &Path) -> io::Result<Usages> {
    let mut usages = Usages::new();
    let mut lines = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(usages),
        Err(error) => return Err(error),
    };
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        let tokens: Usages = serde_json::from_slice(&line).unwrap_or_default();
        tokens.into_iter().for_each(|(id, usage)| add(&mut usages, id, usage));
        line.clear();
    }
    Ok(usages)
}

fn add(usages: &mut Usages, id: String, more: Usage) {
    let usage = usages.entry(id).or_default();
    usage.requests = usage.requests.saturating_add(more.requests);
    usage.last_used = usage.last_used.max(more.last_used);
}

/// Writes lines of these tokens.
fn write_lines<'a>(to: &mut impl Write, usages: impl Iterator<Item = (&'a str, Usage)>) -> io::Result<()> {
    let mut usages = usages.peekable();
    while usages.peek().is_some() {
        let line: BTreeMap<&str, Usage> = usages.by_ref().take(LINE_TOKENS).collect();
        serde_json::to_writer(&mut *to, &line)?;
        to.write_all(b"\n")?;
    }
    Ok(())
}

impl TokenFile {
    /// Adds to the use of tokens. After an error nothing was added.
    pub(in crate::tokens) fn add_usage(&self, uses: &[(Arc<str>, NewUsage)]) -> Result<()> {
        let locked = LockedFile::wait_for(&self.path)?;
        let path = beside(&locked.path, ENDING);
        let failed = |error| FileError::Io { path: path.clone(), error: read_error(&path, error) };
        let admitted = uses.iter().filter(|(_, new)| new.requests > 0);
        let new = admitted.map(|(id, new)| (&**id, Usage { requests: new.requests, last_used: new.last }));
        let old = match fs::symlink_metadata(&path) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error).into()),
        };
        let tokens_changed = old.as_ref().is_some_and(|old| has_changed_since(&locked.path, old));
        let max_len = MIN_MERGED_LEN.max(2 * self.merged_usage_len.load(Ordering::Relaxed));
        let must_merge = tokens_changed || old.is_some_and(|old| !old.is_file() || old.len() > max_len);
        if !must_merge {
            append(&locked, &path, |text| write_lines(text, new)).map_err(failed)?;
            hours::add(self, &locked, uses);
            return Ok(());
        }
        let mut usages = load(&path).map_err(failed)?;
        new.for_each(|(id, new)| add(&mut usages, id.to_owned(), new));
        // A file that is being mended forgets nobody.
        if let Some(ids) = self.ids().filter(|_| tokens_changed) {
            usages.retain(|id, _| ids.contains(id.as_str()));
        }
        locked.replace_with(&path, |file| write_lines(file, usages.iter().map(|(id, usage)| (&**id, *usage))))?;
        let len = fs::metadata(&path).map_or(0, |merged| merged.len());
        self.merged_usage_len.store(len, Ordering::Relaxed);
        hours::add(self, &locked, uses);
        Ok(())
    }

    /// The ids of the tokens that are in the file; `None`: something is wrong with it.
    fn ids(&self) -> Option<HashSet<String>> {
        let file = ServedFile::open(&self.path).ok()?;
        let add = |ids: &mut HashSet<String>, record: Record| {
            ids.insert(record.id);
        };
        file.fold(&self.plans, HashSet::new, add).ok()
    }
}

/// Whether the token file was written, or another one was put in its place, after the file of usage was written.
fn has_changed_since(token_file: &Path, usage: &Metadata) -> bool {
    let changed = fs::metadata(token_file).map(|tokens| (tokens.ctime(), tokens.ctime_nsec()));
    changed.is_ok_and(|changed| changed >= (usage.mtime(), usage.mtime_nsec()))
}
