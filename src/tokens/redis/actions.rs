//! Actions on records in Redis: read, change, write if nobody else did; and when Redis breaks off in the middle, find out what became
//! of the write.

use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::records::RedisTokens;
use crate::store::StoreError;
use crate::tokens::audit::{Action, ActionContext, Entry};
use crate::tokens::cursor::Cursor;
use crate::tokens::error::{RedisTokensError, RegistryError, Result};
use crate::tokens::operation::Operation;
use crate::tokens::outcome::{Edited, RevokedAccount};
use crate::tokens::record::Record;
use crate::tokens::token;

/// How often a write is tried again when somebody else was faster.
const ATTEMPTS: usize = 5;
/// How long Redis is asked what became of a write that it did not answer.
const RETRY_TIME: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);
/// Records read at one time.
const PAGE: usize = 256;

impl RedisTokens {
    pub(in crate::tokens) async fn create(&self, record: Record, by: &ActionContext) -> Result<Edited> {
        let entry = Entry::of(Action::Create, by, None, &record);
        match self.write_until_known(&record, None, &entry).await? {
            Some(version) => Ok(Edited { record, version, changed: true, rewritten: false }),
            None => Err(RegistryError::Exists(record.id)),
        }
    }

    /// `None` if there is no such token.
    pub(in crate::tokens) async fn operate(
        &self,
        id: &str,
        operation: &Operation,
        expected: Option<u64>,
        by: &ActionContext,
    ) -> Result<Option<Edited>> {
        for _ in 0..ATTEMPTS {
            let found = if token::is_id(id) { self.read(id).await? } else { None };
            let Some((version, before)) = found else { return Ok(None) };
            if expected.is_some_and(|expected| expected != version) {
                return Err(RegistryError::Stale { id: id.to_owned(), version });
            }
            let mut record = before.clone();
            operation.apply(&mut record, by.now)?;
            if record == before {
                return Ok(Some(Edited { record, version, changed: false, rewritten: false }));
            }
            let entry = Entry::of(operation.action(), by, Some(&before), &record);
            if let Some(version) = self.write_until_known(&record, Some(version), &entry).await? {
                return Ok(Some(Edited { record, version, changed: true, rewritten: false }));
            }
        }
        Err(RegistryError::Contended(id.to_owned()))
    }

    /// Looks through all records until none of the account's is left that is not revoked: one may be made meanwhile.
    pub(in crate::tokens) async fn revoke_account(&self, account: &str, by: &ActionContext) -> Result<RevokedAccount> {
        let mut done = Vec::new();
        loop {
            let before = done.len();
            match self.revoke_once(account, by, &mut done).await {
                Ok(lost) if done.len() == before => return Ok(RevokedAccount { tokens: done, lost }),
                Ok(_) => {}
                Err(error) if done.is_empty() => return Err(error),
                Err(error) => return Err(RegistryError::Partly { done: done.len(), source: Box::new(error) }),
            }
        }
    }

    /// Returns how many listed tokens have lost their records.
    async fn revoke_once(&self, account: &str, by: &ActionContext, done: &mut Vec<Edited>) -> Result<usize> {
        let mut lost = 0;
        let mut after = Some(Cursor::default());
        while let Some(cursor) = after {
            let page = self.places(&cursor, PAGE, by.now).await?;
            lost += page.orphans.len();
            for (_, stored) in page.records {
                self.revoke_one_of(account, &stored.record, by, done).await?;
            }
            after = page.last;
        }
        // The list, too, is a key that may have been evicted.
        if self.redis.retention().await.may_evict() {
            for ids in self.scan().await?.chunks(PAGE) {
                let records = try_join_all(ids.iter().map(|id| self.read(id))).await?;
                for (_, record) in records.into_iter().flatten() {
                    self.revoke_one_of(account, &record, by, done).await?;
                }
            }
        }
        Ok(lost)
    }

    async fn revoke_one_of(
        &self,
        account: &str,
        record: &Record,
        by: &ActionContext,
        done: &mut Vec<Edited>,
    ) -> Result<()> {
        if record.account == account && record.revoked_at.is_none() {
            let edited = self.operate(&record.id, &Operation::Revoke, None, by).await?;
            done.extend(edited.filter(|edited| edited.changed));
        }
        Ok(())
    }

    /// Writes a record and returns its new version, or `None` if its version was not `expected` (`None`: if it was there).
    ///
    /// Without an answer the write may or may not have been carried out; it is then repeated, under the same condition, until Redis
    /// shows that it was. What was written late by the first try lets the second fail, and the record shows why.
    async fn write_until_known(&self, record: &Record, expected: Option<u64>, entry: &Entry) -> Result<Option<u64>> {
        let gives_up = Instant::now() + RETRY_TIME;
        let mut broken = match self.write(record, expected, entry).await {
            Err(error @ (StoreError::Down | StoreError::Deadline(_))) => error,
            other => return Ok(other?),
        };
        while Instant::now() < gives_up {
            tokio::time::sleep(PAUSE).await;
            match self.read(&record.id).await {
                Ok(Some((version, stored))) if stored == *record => {
                    self.catch_up(&record.id, entry).await;
                    return Ok(Some(version));
                }
                Ok(Some((version, _))) if Some(version) != expected => return Ok(None),
                Err(RedisTokensError::Store(error @ (StoreError::Down | StoreError::Deadline(_)))) => {
                    broken = error;
                    continue;
                }
                Err(error) => return Err(error.into()),
                Ok(Some(_) | None) => {}
            }
            match self.write(record, expected, entry).await {
                Err(error @ (StoreError::Down | StoreError::Deadline(_))) => broken = error,
                Ok(None) => {}
                other => return Ok(other?),
            }
        }
        Err(RegistryError::Uncertain { id: record.id.clone(), source: broken })
    }
}
