//! Many records written together, with one entry in the audit trail.

use futures_util::future::try_join_all;
use redis::Cmd;

use super::records::{RedisTokens, decode};
use crate::store::StoreError;
use crate::tokens::audit::{ActionContext, Entry};
use crate::tokens::error::Result;
use crate::tokens::outcome::ImportOutcome;
use crate::tokens::record::Record;

impl RedisTokens {
    /// Registers those of the records that are not there yet; says of each what became of it.
    ///
    /// # Errors
    /// Some may have been written all the same.
    pub(in crate::tokens) async fn import(
        &self,
        records: &[&Record],
        dry_run: bool,
        by: &ActionContext,
    ) -> Result<Vec<ImportOutcome>> {
        let written = if dry_run {
            let versions = try_join_all(records.iter().map(|record| self.version(&record.id))).await?;
            versions.into_iter().map(|version| version.is_none()).collect()
        } else {
            self.write_all(records, by).await?
        };
        let mut outcomes = Vec::with_capacity(records.len());
        for (record, written) in records.iter().zip(written) {
            let id = record.id.clone();
            let is_same = |there: &Record| record.hashes.iter().any(|hash| there.holding(hash.sha256).is_some());
            outcomes.push(if written {
                ImportOutcome::Written(id)
            } else if self.read(&id).await?.is_some_and(|(_, there)| is_same(&there)) {
                ImportOutcome::Present(id)
            } else {
                ImportOutcome::Taken(id)
            });
        }
        Ok(outcomes)
    }

    /// Writes those of the records whose ids are free; says of each whether it was written. They are in the audit trail before they are
    /// there, so that a writer that dies leaves no token without a trace: at worst, one is in the trail that was not made.
    async fn write_all(&self, records: &[&Record], by: &ActionContext) -> Result<Vec<bool>, StoreError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let version = self.present_version().await?;
        let line = |records: &[&Record]| {
            let entry = Entry::of_import(records.iter().copied(), by);
            let json = serde_json::to_string(&entry).expect("entries have only text keys");
            (entry, format!("{version} {json}"))
        };
        let (entry, announced) = line(records);
        self.enter(version, &announced).await?;
        self.index(records.iter().copied()).await?;
        let written = try_join_all(records.iter().map(|record| async {
            let json = serde_json::to_vec(record).expect("records have only text keys");
            let answer = self.redis.run(&self.scripts.import, &[self.key(&record.id).as_bytes()], &[&json]).await?;
            decode::<u8>(answer).map(|written| written == 1)
        }));
        let written = written.await?;
        // Once more: a listing in between takes ids off that are old and have no record.
        self.index(records.iter().copied()).await?;
        if written.iter().all(|written| *written) {
            entry.log();
            return Ok(written);
        }
        let made: Vec<&Record> = records.iter().zip(&written).filter(|(_, made)| **made).map(|(one, _)| *one).collect();
        if !made.is_empty() {
            let (entry, line) = line(&made);
            self.enter(version, &line).await?;
            entry.log();
        }
        self.redis.call(&Cmd::zrem(self.trail_key(), announced)).await?;
        Ok(written)
    }
}
