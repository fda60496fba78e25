//! Saves how tokens are used in whichever store is configured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

use super::file::TokenFile;
use super::redis::RedisTokens;
use super::usage_counts::UsageCounts;
use crate::config::Config;
use crate::store::{Redis, StoreError};

/// How often usage is saved.
const INTERVAL: Duration = Duration::from_secs(60);
/// Tokens saved at one time, and the pause after them: Redis has other things to do.
const BATCH: usize = 256;
const BATCH_PAUSE: Duration = Duration::from_millis(20);
/// How long the end of an instance waits for the last write.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Saves usage counts in the store.
pub struct UsageWriter {
    counts: Arc<UsageCounts>,
    store: UsageStore,
    warned: AtomicBool,
}

enum UsageStore {
    File(Arc<TokenFile>),
    Redis(RedisTokens),
}

impl UsageWriter {
    /// Writes beside the token file.
    #[must_use]
    pub fn with_file(config: &Config, path: &std::path::Path, counts: Arc<UsageCounts>) -> Self {
        Self { counts, store: UsageStore::File(Arc::new(TokenFile::new(config, path))), warned: AtomicBool::new(false) }
    }

    /// Writes to Redis.
    #[must_use]
    pub fn with_redis(redis: Redis, counts: Arc<UsageCounts>) -> Self {
        Self { counts, store: UsageStore::Redis(RedisTokens::new(redis)), warned: AtomicBool::new(false) }
    }

    /// Saves once a minute. Instances that started together don't save together.
    pub async fn run(&self) {
        tokio::time::sleep(INTERVAL.mul_f64(fastrand::f64())).await;
        loop {
            self.write().await;
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Writes what is left when the instance ends.
    pub async fn finish(&self) {
        // What can't be written in time is lost: it was a minute's worth.
        let _ = tokio::time::timeout(FINISH_TIMEOUT, self.write()).await;
    }

    /// Writes everything that has not been written. What Redis does not take is store for the next time; only of questions that it
    /// left without an answer nobody knows whether they counted, and they are not asked again.
    pub async fn write(&self) {
        let usage = self.counts.take();
        match &self.store {
            UsageStore::Redis(tokens) => {
                let mut rest = &usage[..];
                while !rest.is_empty() {
                    let (batch, more) = rest.split_at(rest.len().min(BATCH));
                    let written = join_all(batch.iter().map(|(id, new)| tokens.add_usage(id, *new))).await;
                    for ((id, new), written) in batch.iter().zip(written) {
                        if let Err(StoreError::Down | StoreError::Refused(_)) = written {
                            self.counts.add(id, *new);
                        }
                    }
                    rest = more;
                    if !rest.is_empty() {
                        tokio::time::sleep(BATCH_PAUSE).await;
                    }
                }
            }
            UsageStore::File(file) if !usage.is_empty() => {
                let file = file.clone();
                let known = usage.clone();
                let written = tokio::task::spawn_blocking(move || file.add_usage(&known)).await;
                match written.expect("work on a token file returns its errors and does not panic") {
                    Ok(()) => self.warned.store(false, Ordering::Relaxed),
                    Err(error) => {
                        usage.iter().for_each(|(id, new)| self.counts.add(id, *new));
                        if !self.warned.swap(true, Ordering::Relaxed) {
                            tracing::warn!("can't save token usage statistics: {error}");
                        }
                    }
                }
            }
            UsageStore::File(_) => {}
        }
    }
}
