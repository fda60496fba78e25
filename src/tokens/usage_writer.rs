//! Saves how tokens are used in whichever store is configured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;

use super::redis::RedisTokens;
use super::registry::{Registry, TokenStore, blocking};
use super::usage_counts::{NewUsage, UsageCounts};
use crate::store::StoreError;

/// How often usage is saved.
const INTERVAL: Duration = Duration::from_secs(60);
/// Tokens saved at one time, and the pause after them: Redis has other things to do.
const BATCH: usize = 256;
const BATCH_PAUSE: Duration = Duration::from_millis(20);
/// How long the end of an instance waits for the last write.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Saves usage counts in the store.
pub struct UsageWriter {
    registry: Arc<Registry>,
    counts: Arc<UsageCounts>,
    warned: AtomicBool,
}

impl UsageWriter {
    /// Saves in the store of `registry`.
    pub fn new(registry: Arc<Registry>, counts: Arc<UsageCounts>) -> Self {
        Self { registry, counts, warned: AtomicBool::new(false) }
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

    /// Writes everything that has not been written. What the store does not take is kept for the next time; only of writes that Redis
    /// left without an answer nobody knows whether they counted, and they are not repeated.
    pub async fn write(&self) {
        let usage = self.counts.take();
        match &self.registry.store {
            TokenStore::Redis(tokens) => self.write_to_redis(tokens, usage).await,
            TokenStore::File(_) if usage.is_empty() => {}
            TokenStore::File(file) => {
                let new = usage.clone();
                match blocking(file, move |file| file.add_usage(&new)).await {
                    Ok(()) => {
                        self.warned.store(false, Ordering::Relaxed);
                        self.counts.remember_refused(&usage, SystemTime::now());
                    }
                    Err(error) => {
                        usage.iter().for_each(|(id, new)| self.counts.add(id, *new));
                        if !self.warned.swap(true, Ordering::Relaxed) {
                            tracing::warn!("can't save token usage statistics: {error}");
                        }
                    }
                }
            }
        }
    }

    async fn write_to_redis(&self, tokens: &RedisTokens, usage: Vec<(Arc<str>, NewUsage)>) {
        // Those whose use is kept for the next time are counted then.
        let mut refused = Vec::new();
        for (index, batch) in usage.chunks(BATCH).enumerate() {
            if index > 0 {
                tokio::time::sleep(BATCH_PAUSE).await;
            }
            let written = join_all(batch.iter().map(|(id, new)| tokens.add_usage(id, *new))).await;
            for ((id, new), written) in batch.iter().zip(written) {
                match written {
                    Err(StoreError::Down | StoreError::Refused(_)) => self.counts.add(id, *new),
                    _ if new.refused > 0 => refused.push((id.clone(), new.refused)),
                    _ => {}
                }
            }
        }
        if let Err(error) = tokens.add_refused(refused).await {
            tracing::debug!(%error, "can't save which tokens are limited the most");
        }
    }
}
