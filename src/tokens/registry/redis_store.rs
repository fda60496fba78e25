//! Deeds on records in Redis: read, change, write if nobody else did; and when Redis breaks off in the middle, find out what became of it.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::store::StoreError;
use crate::tokens::audit::{Action, Actor, Entry};
use crate::tokens::error::{RedisTokensError, RegistryError};
use crate::tokens::operation::Operation;
use crate::tokens::outcome::Edited;
use crate::tokens::record::Record;
use crate::tokens::redis::RedisTokens;
use crate::tokens::stored::Cursor;
use crate::tokens::token;

/// So often a write is tried again when somebody else was faster.
const ATTEMPTS: usize = 5;
/// For so long Redis is asked what became of a write that it did not answer.
const RETRY_TIME: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);
/// Ids that are compared with one that is unknown.
const MAX_HINTS: usize = 10_000;
/// Records read at one time.
const PAGE: usize = 256;

/// A write that is under way. Without an answer it may or may not have been carried out; it is then repeated, under the same
/// condition, until Redis tells that it stands. What was written late by the first try lets the second fail, and the record shows why.
struct Write<'a> {
    tokens: &'a RedisTokens,
    record: &'a Record,
    entry: &'a Entry,
}

impl Write<'_> {
    /// The new version, or `None` if the record did not have the version `expected` (`None`: if it was there).
    async fn carry_out(&self, expected: Option<u64>) -> Result<Option<u64>, RegistryError> {
        let gives_up = Instant::now() + RETRY_TIME;
        let mut broken = match self.once(expected).await {
            Err(error @ (StoreError::Down | StoreError::Deadline)) => error,
            other => return Ok(other?),
        };
        while Instant::now() < gives_up {
            tokio::time::sleep(PAUSE).await;
            match self.tokens.read(&self.record.id).await {
                Ok(Some((version, record))) if record == *self.record => {
                    self.tokens.catch_up(&record.id, self.entry).await;
                    return Ok(Some(version));
                }
                Ok(Some((version, _))) if Some(version) != expected => return Ok(None),
                Err(RedisTokensError::Store(error @ (StoreError::Down | StoreError::Deadline))) => {
                    broken = error;
                    continue;
                }
                Err(error) => return Err(error.into()),
                Ok(Some(_) | None) => {}
            }
            match self.once(expected).await {
                Err(error @ (StoreError::Down | StoreError::Deadline)) => broken = error,
                Ok(None) => {}
                other => return Ok(other?),
            }
        }
        Err(RegistryError::Uncertain { id: self.record.id.clone(), source: broken })
    }

    async fn once(&self, expected: Option<u64>) -> Result<Option<u64>, StoreError> {
        match expected {
            Some(version) => self.tokens.replace(self.record, version, self.entry).await,
            None => self.tokens.create(self.record, self.entry).await,
        }
    }
}

pub(super) async fn create(
    tokens: &RedisTokens,
    record: Record,
    by: &Actor,
    now: SystemTime,
) -> Result<Edited, RegistryError> {
    let entry = Entry::of(Action::Create, by, now, None, &record);
    let write = Write { tokens, record: &record, entry: &entry };
    match write.carry_out(None).await? {
        Some(version) => Ok(Edited { record, version, changed: true, rewritten: false }),
        None => Err(RegistryError::Exists(record.id)),
    }
}

/// `None` if there is no such token.
pub(super) async fn operate(
    tokens: &RedisTokens,
    id: &str,
    operation: &Operation,
    expected: Option<u64>,
    by: &Actor,
    now: SystemTime,
) -> Result<Option<Edited>, RegistryError> {
    for _ in 0..ATTEMPTS {
        let found = if token::is_id(id) { tokens.read(id).await? } else { None };
        let Some((version, before)) = found else { return Ok(None) };
        if expected.is_some_and(|expected| expected != version) {
            return Err(RegistryError::Stale { id: id.to_owned(), version });
        }
        let mut record = before.clone();
        operation.apply(&mut record, now)?;
        if record == before {
            return Ok(Some(Edited { record, version, changed: false, rewritten: false }));
        }
        let entry = Entry::of(operation.action(), by, now, Some(&before), &record);
        let write = Write { tokens, record: &record, entry: &entry };
        if let Some(version) = write.carry_out(Some(version)).await? {
            return Ok(Some(Edited { record, version, changed: true, rewritten: false }));
        }
    }
    Err(RegistryError::Contended(id.to_owned()))
}

/// Looks through all records until none of the account's is left that is not revoked: one may be made meanwhile.
pub(super) async fn revoke_account(
    tokens: &RedisTokens,
    account: &str,
    by: &Actor,
    now: SystemTime,
) -> Result<Vec<Edited>, RegistryError> {
    let mut done = Vec::new();
    loop {
        let before = done.len();
        match revoke_once(tokens, account, by, now, &mut done).await {
            Ok(()) if done.len() == before => return Ok(done),
            Ok(()) => {}
            Err(error) if done.is_empty() => return Err(error),
            Err(error) => return Err(RegistryError::Partly { done: done.len(), source: Box::new(error) }),
        }
    }
}

async fn revoke_once(
    tokens: &RedisTokens,
    account: &str,
    by: &Actor,
    now: SystemTime,
    done: &mut Vec<Edited>,
) -> Result<(), RegistryError> {
    let mut after = Some(Cursor::default());
    while let Some(place) = after {
        let (page, next) = tokens.page(&place, PAGE, now).await?;
        for (_, stored) in page {
            if stored.record.account != account || stored.record.revoked_at.is_some() {
                continue;
            }
            let edited = operate(tokens, &stored.record.id, &Operation::Revoke, None, by, now).await?;
            done.extend(edited.filter(|edited| edited.changed));
        }
        after = next;
    }
    Ok(())
}

/// Enough ids to find the one that was meant.
pub(super) async fn some_ids(tokens: &RedisTokens) -> Result<Vec<String>, RegistryError> {
    let places = tokens.ids(&Cursor::default(), MAX_HINTS).await?;
    Ok(places.into_iter().map(|place| place.id).collect())
}
