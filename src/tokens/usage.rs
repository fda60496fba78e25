//! How tokens are used: counted in memory as requests are admitted, and written to the store later, many at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use foldhash::fast::RandomState;
use futures_util::future::join_all;

use super::date::Date;
use super::file::TokenFile;
use super::redis::RedisTokens;
use crate::config::Config;
use crate::sharded::Sharded;
use crate::store::{Redis, StoreError};

/// The use of a token is written at most so often.
const INTERVAL: Duration = Duration::from_secs(60);
/// Tokens whose use is written at one time, and the pause after them: a busy Redis has other things to do.
const BATCH: usize = 256;
const BREATH: Duration = Duration::from_millis(20);
/// An instance that ends gets so long to write what it knows.
const FAREWELL: Duration = Duration::from_secs(2);
/// Tokens whose use is remembered between two writes, at some 80 bytes each. The use of more is not counted.
const MOST: usize = 1_000_000;
/// Enough that two workers seldom want the same one.
const SHARDS: usize = 32;

type Uses = HashMap<Arc<str>, Use, RandomState>;

/// What has not been written of a token yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) requests: u64,
    pub(super) last: Date,
}

/// The use of all tokens since it was written last; one for all workers.
pub struct UsageCounts {
    shards: Sharded<Uses, SHARDS>,
    len: AtomicUsize,
    most: usize,
}

impl Default for UsageCounts {
    fn default() -> Self {
        Self::of(MOST)
    }
}

impl UsageCounts {
    fn of(most: usize) -> Self {
        Self { shards: Sharded::default(), len: AtomicUsize::new(0), most }
    }

    /// A request of this token was admitted then.
    pub fn note(&self, id: &Arc<str>, at: SystemTime) {
        self.add(id, Use { requests: 1, last: Date::new(at) });
    }

    fn add(&self, id: &Arc<str>, new: Use) {
        let mut uses = self.shards.lock(id);
        if let Some(known) = uses.get_mut(id) {
            known.requests += new.requests;
            known.last = known.last.max(new.last);
        } else if self.len.fetch_add(1, Ordering::Relaxed) < self.most {
            uses.insert(id.clone(), new);
        } else {
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// All that is to be written.
    fn take(&self) -> Vec<(Arc<str>, Use)> {
        let mut taken = Vec::new();
        for mut shard in self.shards.iter() {
            // The lock is held for an exchange, and not for a walk.
            let uses = std::mem::take(&mut *shard);
            drop(shard);
            self.len.fetch_sub(uses.len(), Ordering::Relaxed);
            taken.extend(uses);
        }
        taken
    }
}

/// Who writes a book to the store.
pub struct UsageWriter {
    book: Arc<UsageCounts>,
    kept: Kept,
    complained: AtomicBool,
}

enum Kept {
    File(Arc<TokenFile>),
    Redis(RedisTokens),
}

impl UsageWriter {
    /// Writes beside the token file.
    #[must_use]
    pub fn with_file(config: &Config, path: &std::path::Path, book: Arc<UsageCounts>) -> Self {
        Self { book, kept: Kept::File(Arc::new(TokenFile::new(config, path))), complained: AtomicBool::new(false) }
    }

    /// Writes to Redis.
    #[must_use]
    pub fn with_redis(redis: Redis, book: Arc<UsageCounts>) -> Self {
        Self { book, kept: Kept::Redis(RedisTokens::new(redis)), complained: AtomicBool::new(false) }
    }

    /// Writes once a minute, for ever; instances that were started together don't write together.
    pub async fn keep(&self) {
        tokio::time::sleep(INTERVAL.mul_f64(fastrand::f64())).await;
        loop {
            self.write().await;
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Writes what is left when the instance ends.
    pub async fn finish(&self) {
        // What can't be written in time is lost: it was a minute's worth.
        let _ = tokio::time::timeout(FAREWELL, self.write()).await;
    }

    /// Writes everything that has not been written. What Redis does not take is kept for the next time; only of questions that it
    /// left without an answer nobody knows whether they counted, and they are not asked again.
    pub async fn write(&self) {
        let uses = self.book.take();
        match &self.kept {
            Kept::Redis(tokens) => {
                let mut rest = &uses[..];
                while !rest.is_empty() {
                    let (batch, more) = rest.split_at(rest.len().min(BATCH));
                    let written = join_all(batch.iter().map(|(id, new)| tokens.add_use(id, *new))).await;
                    for ((id, new), written) in batch.iter().zip(written) {
                        if let Err(StoreError::Down | StoreError::Refused(_)) = written {
                            self.book.add(id, *new);
                        }
                    }
                    rest = more;
                    if !rest.is_empty() {
                        tokio::time::sleep(BREATH).await;
                    }
                }
            }
            Kept::File(file) if !uses.is_empty() => {
                let file = file.clone();
                let known = uses.clone();
                let written = tokio::task::spawn_blocking(move || file.add_uses(&known)).await;
                match written.expect("work on a token file returns its errors and does not panic") {
                    Ok(()) => self.complained.store(false, Ordering::Relaxed),
                    Err(error) => {
                        uses.iter().for_each(|(id, new)| self.book.add(id, *new));
                        if !self.complained.swap(true, Ordering::Relaxed) {
                            tracing::warn!("the use of tokens can't be written: {error}");
                        }
                    }
                }
            }
            Kept::File(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn uses_add_up_and_are_taken_once() {
        let (book, id) = (UsageCounts::default(), Arc::from("abc"));
        for second in [7, 9, 8] {
            book.note(&id, at(second));
        }
        assert_eq!(book.take(), [(id.clone(), Use { requests: 3, last: Date::new(at(9)) })]);
        assert!(book.take().is_empty());
        book.add(&id, Use { requests: 3, last: Date::new(at(9)) });
        book.note(&id, at(8));
        assert_eq!(book.take(), [(id, Use { requests: 4, last: Date::new(at(9)) })]);
    }

    #[test]
    fn a_full_book_counts_those_that_it_knows_and_no_others() {
        let book = UsageCounts::of(2);
        for id in ["a", "b", "c", "a", "c"] {
            book.note(&Arc::from(id), at(1));
        }
        let mut taken: Vec<_> = book.take().into_iter().map(|(id, new)| (id.to_string(), new.requests)).collect();
        taken.sort();
        assert_eq!(taken, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
        book.note(&Arc::from("c"), at(1));
        assert_eq!(book.take().len(), 1);
    }
}
