//! Managing the tokens of a file: one writer at a time, the new file in place of the old one in one step, comments kept where they can
//! be.
//!
//! An edit is made in the text itself, line by line. What comes out is parsed again; should it not say exactly what it was meant to (an
//! unusual layout), the tokens concerned are written anew, or else the whole file, of which only the comment at its head is kept.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use super::atomic_replace::{LockedFile, target};
use super::parse::Placed;
use super::text::{self, Edits};
use super::token_file::{TokenFile, read_records};
use super::trail;
use super::usage;
use crate::tokens::audit::{Action, ActionContext, Entry};
use crate::tokens::cursor::Cursor;
use crate::tokens::error::{RegistryError, Result};
use crate::tokens::hour::HourUsage;
use crate::tokens::operation::Operation;
use crate::tokens::outcome::{Edited, ImportOutcome};
use crate::tokens::record::{Record, StoredRecord};
use crate::tokens::token::TokenHash;

/// What a change comes to: edits of the file, and what the trail is to say of them.
#[derive(Default)]
struct FileChange {
    edits: Edits,
    entries: Vec<Entry>,
}

impl TokenFile {
    /// One record, with what is kept beside it.
    pub(in crate::tokens) fn read(&self, id: &str) -> Result<Option<StoredRecord>> {
        let record = self.list()?.into_iter().find(|record| record.id == id);
        let Some(record) = record else { return Ok(None) };
        Ok(self.stored([record])?.pop())
    }

    /// Up to `count` records behind a place that are wanted. The place is an index and the id that was there; also the place of the
    /// last one, unless there is none wanted behind it.
    pub(in crate::tokens) fn page(
        &self,
        after: &Cursor,
        count: usize,
        is_wanted: impl Fn(&Record) -> bool,
    ) -> Result<(Vec<StoredRecord>, Option<Cursor>)> {
        let records = self.list()?;
        let start = match records.iter().position(|record| record.id == after.id) {
            Some(at) => at + 1,
            // Somebody took it out: what followed it has moved up.
            None => usize::try_from(after.created).unwrap_or(usize::MAX),
        };
        let mut wanted = records.into_iter().enumerate().skip(start).filter(|(_, record)| is_wanted(record));
        let (places, page): (Vec<usize>, Vec<Record>) = wanted.by_ref().take(count).unzip();
        let last = places.last().zip(page.last()).filter(|_| wanted.next().is_some());
        let last = last.map(|(at, record)| Cursor { created: *at as u64, id: record.id.clone() });
        Ok((self.stored(page)?, last))
    }

    /// Adds a record.
    pub(in crate::tokens) fn create(&self, record: Record, by: &ActionContext) -> Result<Edited> {
        let ((), rewritten) = self.change(by, |placed| {
            let same = |old: &&Placed| {
                let taken = |hash| old.record.hashes.iter().any(|other| other.sha256 == hash);
                old.record.id == record.id || record.hashes.iter().any(|hash| taken(hash.sha256))
            };
            if let Some(old) = placed.iter().find(same) {
                return Err(RegistryError::Exists(old.record.id.clone()));
            }
            let entries = vec![Entry::of(Action::Create, by, None, &record)];
            Ok((FileChange { edits: Edits { added: vec![record.clone()], ..Edits::default() }, entries }, ()))
        })?;
        Ok(Edited { version: record.fingerprint(), record, changed: true, rewritten })
    }

    /// Adds those of many records that are not there yet, in one write; says of each what became of it, and whether the whole file had
    /// to be written anew. After an error none was added.
    pub(in crate::tokens) fn import(
        &self,
        records: Vec<Record>,
        dry_run: bool,
        by: &ActionContext,
    ) -> Result<(Vec<ImportOutcome>, bool)> {
        self.change(by, |placed| {
            let mut outcomes = Vec::with_capacity(records.len());
            let of_id: HashMap<&str, &Record> = placed.iter().map(|old| (&*old.record.id, &old.record)).collect();
            let hashes = placed.iter().flat_map(|old| old.record.hashes.iter().map(|hash| (hash.sha256, &old.record)));
            let of_hash: HashMap<TokenHash, &Record> = hashes.collect();
            let (mut change, mut ids) = (FileChange::default(), HashSet::new());
            for record in records {
                let same = record.hashes.iter().find_map(|hash| of_hash.get(&hash.sha256));
                outcomes.push(match (same, of_id.contains_key(&*record.id) || !ids.insert(record.id.clone())) {
                    (Some(there), _) => ImportOutcome::Present(there.id.clone()),
                    (None, true) => ImportOutcome::Taken(record.id),
                    (None, false) => {
                        change.edits.added.push(record.clone());
                        ImportOutcome::Written(record.id)
                    }
                });
            }
            if dry_run {
                change = FileChange::default();
            } else if !change.edits.added.is_empty() {
                change.entries.push(Entry::of_import(change.edits.added.iter(), by));
            }
            Ok((change, outcomes))
        })
    }

    pub(in crate::tokens) fn operate(
        &self,
        id: &str,
        operation: &Operation,
        expected: Option<u64>,
        by: &ActionContext,
    ) -> Result<Edited> {
        let ((record, changed), rewritten) = self.change(by, |placed| {
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
            operation.apply(&mut record, by.now)?;
            let mut change = FileChange::default();
            if record != *before {
                change.entries.push(Entry::of(operation.action(), by, Some(before), &record));
                change.edits.changed.insert(at, record.clone());
            }
            let changed = !change.entries.is_empty();
            Ok((change, (record, changed)))
        })?;
        Ok(Edited { version: record.fingerprint(), record, changed, rewritten })
    }

    /// Revokes all tokens of an account, in one step; returns those that were not revoked before.
    pub(in crate::tokens) fn revoke_account(&self, account: &str, by: &ActionContext) -> Result<Vec<Edited>> {
        let (revoked, rewritten) = self.change(by, |placed| {
            let (mut change, mut revoked) = (FileChange::default(), Vec::new());
            for (at, Placed { record: before, .. }) in placed.iter().enumerate() {
                let mut record = before.clone();
                if before.account == account && before.revoked_at.is_none() {
                    Operation::Revoke.apply(&mut record, by.now)?;
                    change.entries.push(Entry::of(Action::Revoke, by, Some(before), &record));
                    revoked.push(record.clone());
                    change.edits.changed.insert(at, record);
                }
            }
            Ok((change, revoked))
        })?;
        let edited = |record: Record| Edited { version: record.fingerprint(), record, changed: true, rewritten };
        Ok(revoked.into_iter().map(edited).collect())
    }

    /// Up to `count` entries of the audit trail before one, the newest first.
    pub(in crate::tokens) fn trail(&self, before: Option<u64>, count: usize) -> Result<Vec<(u64, Entry)>> {
        let entries = trail::read(&target(&self.path))?;
        let wanted = entries.into_iter().rev().filter(|(seq, _)| before.is_none_or(|before| *seq < before));
        Ok(wanted.take(count).collect())
    }

    /// Adds an entry of what was done to a token elsewhere.
    pub(in crate::tokens) fn note(&self, entry: &Entry, now: SystemTime) -> Result<()> {
        let locked = LockedFile::wait_for(&self.path)?;
        trail::settle(&locked)?;
        trail::add(&locked, entry, now)?;
        entry.log();
        Ok(())
    }

    /// Reads the file, decides on a change, and puts the result in the file's place, all under the lock. Returns what `decide` says
    /// besides, and whether the whole file had to be written anew.
    fn change<T>(
        &self,
        by: &ActionContext,
        decide: impl FnOnce(&[Placed]) -> Result<(FileChange, T)>,
    ) -> Result<(T, bool)> {
        let locked = LockedFile::wait_for(&self.path)?;
        let (text, placed) = self.load(&locked.path)?;
        let (FileChange { edits, entries }, decision) = decide(&placed)?;
        if entries.is_empty() {
            return Ok((decision, false));
        }
        let says = |text: &String| {
            let says = read_records(&locked.path, text, &self.plans);
            says.is_ok_and(|records| records.iter().eq(edits.applied(&placed)))
        };
        let kept = text::by_lines(&text, &placed, &edits).filter(says);
        let kept = kept.or_else(|| text::by_entries(&text, &placed, &edits).filter(says));
        let rewritten = kept.is_none();
        let new = kept.unwrap_or_else(|| text::rendered(&text, edits.applied(&placed)));
        debug_assert!(!rewritten || says(&new), "a file written anew says what it was meant to");
        // An entry that is still to come would be overwritten.
        trail::settle(&locked)?;
        trail::prepare(&locked, &entries, &new, by.now)?;
        let replaced = locked.replace(&locked.path, &new);
        if let Err(error) = trail::settle(&locked) {
            tracing::warn!("an entry of the audit trail is late: {error}");
        }
        replaced?;
        entries.iter().for_each(Entry::log);
        Ok((decision, rewritten))
    }

    /// The use of a token in each of the last hours, the oldest first.
    pub(in crate::tokens) fn usage_by_hour(&self, id: &str, now: SystemTime) -> Vec<HourUsage> {
        usage::read_hours(&self.path, id, now)
    }

    /// Records with what is kept beside them.
    fn stored(&self, records: impl IntoIterator<Item = Record>) -> Result<Vec<StoredRecord>> {
        let usages = usage::read(&self.path);
        let stored = |record: Record| StoredRecord {
            version: record.fingerprint(),
            usage: usages.get(&record.id).copied().unwrap_or_default(),
            record,
        };
        Ok(records.into_iter().map(stored).collect())
    }
}
