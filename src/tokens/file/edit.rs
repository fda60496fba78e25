//! Managing the tokens of a file: one writer at a time, the new file in place of the old one in one step, comments kept where they can
//! be.
//!
//! An edit is made in the text itself, line by line. What comes out is parsed again; should it not say exactly what it was meant to (an
//! unusual layout), the tokens concerned are written anew, or else the whole file, of which only the comment at its head is kept.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::FileError;
use super::exchange::{LOCK_WAIT, Locked, beside};
use super::parse::{Placed, parse};
use super::text::{self, Edits};
use super::trail;
use super::usage;
use crate::config::Config;
use crate::tokens::audit::{Action, Actor, Entry};
use crate::tokens::plans::Plans;
use crate::tokens::record::Record;
use crate::tokens::redis::{Page, Place, Stored};
use crate::tokens::registry::{Edited, ImportOutcome, Operation, RegistryError, entry_of};
use crate::tokens::token::TokenHash;

/// Why a token file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// It can't be read as it is.
    #[error(transparent)]
    File(#[from] FileError),
    /// Reading or writing failed.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file or its folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Somebody else kept it locked.
    #[error("{}: another process has been changing it for {} seconds", .0.display(), LOCK_WAIT.as_secs())]
    Locked(PathBuf),
    /// What was asked for can't be done.
    #[error(transparent)]
    Refused(Box<RegistryError>),
}

impl From<RegistryError> for EditError {
    fn from(error: RegistryError) -> Self {
        Self::Refused(Box::new(error))
    }
}

/// The token file as those see it who change it.
pub struct TokenFile {
    pub(super) path: PathBuf,
    pub(super) plans: Plans,
}

/// What a deed comes to: edits of the file, and what the trail is to say of them.
#[derive(Default)]
struct Deed {
    edits: Edits,
    entries: Vec<Entry>,
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

    /// One record, with what is kept beside it.
    pub(in crate::tokens) fn read(&self, id: &str) -> Result<Option<Stored>, EditError> {
        let record = self.list()?.into_iter().find(|record| record.id == id);
        let Some(record) = record else { return Ok(None) };
        Ok(self.stored([record])?.pop())
    }

    /// Up to `count` records behind a place, which is an index and the id that was there; and the place of the last one, unless
    /// there is none behind it.
    pub(in crate::tokens) fn page(&self, after: &Place, count: usize) -> Result<Page, EditError> {
        let records = self.list()?;
        let start = match records.iter().position(|record| record.id == after.id) {
            Some(at) => at + 1,
            // Somebody took it out: what followed it has moved up.
            None => usize::try_from(after.created).unwrap_or(usize::MAX),
        };
        let more = records.len() > start.saturating_add(count);
        let places = records.iter().enumerate().skip(start).take(count);
        let places: Vec<Place> =
            places.map(|(at, record)| Place { created: at as u64, id: record.id.clone() }).collect();
        let stored = self.stored(records.into_iter().skip(start).take(count))?;
        let last = places.last().filter(|_| more).cloned();
        Ok((places.into_iter().zip(stored).collect(), last))
    }

    /// Adds a record.
    ///
    /// # Errors
    /// [`EditError`]
    pub(in crate::tokens) fn create(&self, record: Record, by: &Actor, now: SystemTime) -> Result<Edited, EditError> {
        let rewritten = self.change(now, |placed| {
            let same = |old: &&Placed| {
                let taken = |hash| old.record.hashes.iter().any(|other| other.sha256 == hash);
                old.record.id == record.id || record.hashes.iter().any(|hash| taken(hash.sha256))
            };
            if let Some(old) = placed.iter().find(same) {
                return Err(RegistryError::Exists(old.record.id.clone()));
            }
            let entries = vec![Entry::of(Action::Create, by, now, None, &record)];
            Ok(Deed { edits: Edits { added: vec![record.clone()], ..Edits::default() }, entries })
        })?;
        Ok(Edited { version: record.fingerprint(), record, changed: true, rewritten })
    }

    /// Adds those of many records that are not there yet, in one write; says of each what became of it, and whether the whole file had
    /// to be written anew.
    ///
    /// # Errors
    /// [`EditError`]; then none was added.
    pub(in crate::tokens) fn import(
        &self,
        records: Vec<Record>,
        dry_run: bool,
        by: &Actor,
        now: SystemTime,
    ) -> Result<(Vec<ImportOutcome>, bool), EditError> {
        let mut fates = Vec::with_capacity(records.len());
        let rewritten = self.change(now, |placed| {
            let of_id: HashMap<&str, &Record> = placed.iter().map(|old| (&*old.record.id, &old.record)).collect();
            let hashes = placed.iter().flat_map(|old| old.record.hashes.iter().map(|hash| (hash.sha256, &old.record)));
            let of_hash: HashMap<TokenHash, &Record> = hashes.collect();
            let (mut deed, mut ids) = (Deed::default(), HashSet::new());
            for record in records {
                let same = record.hashes.iter().find_map(|hash| of_hash.get(&hash.sha256));
                fates.push(match (same, of_id.contains_key(&*record.id) || !ids.insert(record.id.clone())) {
                    (Some(there), _) => ImportOutcome::Present(there.id.clone()),
                    (None, true) => ImportOutcome::Taken(record.id),
                    (None, false) => {
                        deed.edits.added.push(record.clone());
                        ImportOutcome::Written(record.id)
                    }
                });
            }
            if dry_run {
                return Ok(Deed::default());
            }
            if !deed.edits.added.is_empty() {
                deed.entries.push(entry_of(deed.edits.added.iter(), by, now));
            }
            Ok(deed)
        })?;
        Ok((fates, rewritten))
    }

    /// Does something to a token.
    ///
    /// # Errors
    /// [`EditError`]
    pub(in crate::tokens) fn operate(
        &self,
        id: &str,
        operation: &Operation,
        expected: Option<u64>,
        by: &Actor,
        now: SystemTime,
    ) -> Result<Edited, EditError> {
        let mut done = None;
        let rewritten = self.change(now, |placed| {
            let Some(at) = placed.iter().position(|placed| placed.record.id == id) else {
                let known = placed.iter().map(|placed| placed.record.id.clone()).collect();
                return Err(RegistryError::Unknown { id: id.to_owned(), known });
            };
            let before = &placed[at].record;
            let version = before.fingerprint();
            if expected.is_some_and(|expected| expected != version) {
                return Err(RegistryError::Stale { id: id.to_owned(), version });
            }
            let mut record = before.clone();
            operation.apply(&mut record, now)?;
            let mut deed = Deed::default();
            if record != *before {
                deed.entries.push(Entry::of(operation.action(), by, now, Some(before), &record));
                deed.edits.changed.insert(at, record.clone());
            }
            done = Some((record, !deed.entries.is_empty()));
            Ok(deed)
        })?;
        let (record, changed) = done.expect("a deed that succeeded has told its record");
        Ok(Edited { version: record.fingerprint(), record, changed, rewritten })
    }

    /// Revokes all tokens of an account, in one step; returns those that were not revoked before.
    ///
    /// # Errors
    /// [`EditError`]
    pub(in crate::tokens) fn revoke_account(
        &self,
        account: &str,
        by: &Actor,
        now: SystemTime,
    ) -> Result<Vec<Edited>, EditError> {
        let mut revoked = Vec::new();
        let rewritten = self.change(now, |placed| {
            let mut deed = Deed::default();
            for (at, Placed { record: before, .. }) in placed.iter().enumerate() {
                let mut record = before.clone();
                if before.account == account && before.revoked_at.is_none() {
                    Operation::Revoke.apply(&mut record, now)?;
                    deed.entries.push(Entry::of(Action::Revoke, by, now, Some(before), &record));
                    revoked.push(record.clone());
                    deed.edits.changed.insert(at, record);
                }
            }
            Ok(deed)
        })?;
        let edited = |record: Record| Edited { version: record.fingerprint(), record, changed: true, rewritten };
        Ok(revoked.into_iter().map(edited).collect())
    }

    /// Up to `count` entries of the audit trail before one, the newest first.
    ///
    /// # Errors
    /// [`EditError::Write`]
    pub(in crate::tokens) fn trail(&self, before: Option<u64>, count: usize) -> Result<Vec<(u64, Entry)>, EditError> {
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let entries = trail::read(&beside(&path, trail::ENDING))?;
        let wanted = entries.into_iter().rev().filter(|(seq, _)| before.is_none_or(|before| *seq < before));
        Ok(wanted.take(count).collect())
    }

    /// Reads the file, decides on a deed, and puts the result in the file's place, all under the lock. Returns whether the whole file
    /// had to be written anew.
    fn change(
        &self,
        now: SystemTime,
        decide: impl FnOnce(&[Placed]) -> Result<Deed, RegistryError>,
    ) -> Result<bool, EditError> {
        let locked = Locked::wait_for(&self.path)?;
        let (text, placed) = self.load(&locked.path)?;
        let Deed { edits, entries } = decide(&placed)?;
        let wanted = edits.applied(&placed);
        if entries.is_empty() {
            return Ok(false);
        }
        let says = |text: &String| {
            parse(&locked.path, text, &self.plans)
                .is_ok_and(|placed| placed.iter().map(|placed| &placed.record).eq(&wanted))
        };
        let kept = text::by_lines(&text, &placed, &edits).filter(says);
        let kept = kept.or_else(|| text::by_entries(&text, &placed, &edits).filter(says));
        let rewritten = kept.is_none();
        let new = kept.unwrap_or_else(|| text::rendered(&text, &wanted));
        debug_assert!(!rewritten || says(&new), "a file written anew says what it was meant to");
        let written = trail::write(&locked, &entries, now)?;
        if let Err(error) = locked.replace(&locked.path, &new) {
            written.undo();
            return Err(error);
        }
        entries.iter().for_each(Entry::log);
        Ok(rewritten)
    }

    /// A file that isn't there is empty.
    fn load(&self, path: &Path) -> Result<(String, Vec<Placed>), EditError> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other.map_err(|source| FileError::Io { path: path.to_owned(), source })?,
        };
        let placed = parse(path, &text, &self.plans).map_err(FileError::Invalid)?;
        Ok((text, placed))
    }

    /// Records with what is kept beside them.
    fn stored(&self, records: impl IntoIterator<Item = Record>) -> Result<Vec<Stored>, EditError> {
        let usages = usage::read(&self.path);
        let stored = |record: Record| Stored {
            version: record.fingerprint(),
            usage: usages.get(&record.id).copied().unwrap_or_default(),
            record,
        };
        Ok(records.into_iter().map(stored).collect())
    }
}
