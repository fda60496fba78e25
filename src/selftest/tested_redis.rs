//! The tested Redis: what it reports about itself, and the temporary tokens in it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use futures_util::future;
use redis::{Cmd, FromRedisValue};
use serde::Serialize;

use crate::config::RedisStore;
use crate::limits::DECIDE;
use crate::store::{Redis, Script};

use super::instance::RECORD_VERSION;

/// Records expire by themselves, in case the test can't delete them.
const RECORD_TTL_MS: u64 = 900_000;
/// In older versions, scripts that read the clock may not write.
const MIN_VERSION: u32 = 5;

/// A connection to it, with a namespace of its own.
pub(super) struct TestedRedis {
    /// Without user and password.
    pub(super) address: String,
    /// The settings of the instances.
    pub(super) store: RedisStore,
    redis: Redis,
}

#[derive(Debug, Serialize)]
pub(super) struct RedisFacts {
    pub(super) version: Option<String>,
    /// `standalone`, `sentinel` or `cluster`.
    pub(super) mode: Option<String>,
    pub(super) maxmemory_policy: Option<String>,
    /// How far its clock is ahead of this machine's, to half a round trip.
    pub(super) clock_ahead_ms: i64,
}

impl TestedRedis {
    /// Connects, and checks that Redis runs the decision script.
    ///
    /// # Errors
    /// Why Redis can't be used; never the password.
    pub(super) async fn open(address: String, store: RedisStore) -> anyhow::Result<Self> {
        let redis =
            Redis::open_for_command(&store).await.with_context(|| format!("Redis at {address} can't be used"))?;
        let target = Self { address, store, redis };
        let keys = ["token", "log"].map(|name| target.key("nobody", name));
        let keys = [keys[0].as_bytes(), keys[1].as_bytes()];
        let refused = || format!("Redis at {} does not run the decision script", target.address);
        target.redis.run(&Script::new(DECIDE), &keys, &[b"1", &[1, 0, 0, 0]]).await.with_context(refused)?;
        Ok(target)
    }

    /// RedisFacts that this user of Redis may not read are `None`.
    pub(super) async fn facts(&self) -> anyhow::Result<RedisFacts> {
        let server: String = self.call(redis::cmd("INFO").arg("server")).await.unwrap_or_default();
        let memory: String = self.call(redis::cmd("INFO").arg("memory")).await.unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(|value| value.trim().to_owned())
        };
        let sent = Instant::now();
        let (seconds, micros): (u64, u64) = self.call(&mut redis::cmd("TIME")).await?;
        let half_ms = sent.elapsed().as_millis() as i64 / 2;
        let here_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        Ok(RedisFacts {
            version: field(&server, "redis_version"),
            mode: field(&server, "redis_mode"),
            maxmemory_policy: field(&memory, "maxmemory_policy"),
            clock_ahead_ms: (seconds * 1_000 + micros / 1_000) as i64 + half_ms - here_ms,
        })
    }

    /// Writes token records.
    pub(super) async fn create(&self, tokens: &[String]) -> anyhow::Result<()> {
        let records = tokens.iter().map(async |id| {
            let key = self.key(id, "token");
            self.call::<u32>(redis::cmd("HSET").arg(&key).arg("version").arg(RECORD_VERSION)).await?;
            self.call::<u32>(redis::cmd("PEXPIRE").arg(&key).arg(RECORD_TTL_MS)).await
        });
        future::try_join_all(records).await.context("can't write token records")?;
        Ok(())
    }

    /// Deletes all keys of these tokens; returns how many there were.
    pub(super) async fn delete(&self, tokens: &[String]) -> anyhow::Result<u64> {
        let keys = ["token", "log", "calls", "merged"];
        let deleted = tokens.iter().map(async |id| {
            self.call::<u64>(redis::cmd("DEL").arg(keys.map(|name| self.key(id, name)).as_slice())).await
        });
        Ok(future::try_join_all(deleted).await?.into_iter().sum())
    }

    /// Bytes of a token's log.
    pub(super) async fn log_bytes(&self, token: &str) -> anyhow::Result<u64> {
        self.call(redis::cmd("MEMORY").arg("USAGE").arg(self.key(token, "log"))).await
    }

    /// Closes the connections with this client name; returns how many there were.
    pub(super) async fn cut(&self, name: &str) -> anyhow::Result<usize> {
        let name = format!("name={name}");
        let mut cut = 0;
        // Client ids belong to one server of a cluster.
        for server in 0..self.redis.servers() {
            let list = self.redis.call_server(server, redis::cmd("CLIENT").arg("LIST")).await?;
            let list = String::from_redis_value(list)?;
            let ours = list.lines().filter(|line| line.split(' ').any(|field| field == name));
            for id in ours.filter_map(|line| line.split(' ').find_map(|field| field.strip_prefix("id="))) {
                let killed = self.redis.call_server(server, redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id)).await?;
                cut += usize::from_redis_value(killed)?;
            }
        }
        Ok(cut)
    }

    fn key(&self, token: &str, name: &str) -> String {
        format!("{}:{{{token}}}:{name}", self.redis.namespace())
    }

    async fn call<T: FromRedisValue>(&self, command: &mut Cmd) -> anyhow::Result<T> {
        Ok(T::from_redis_value(self.redis.call(command).await?)?)
    }
}

impl RedisFacts {
    /// What the operator should know or change.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let major = self.version.as_ref().and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        if major.is_some_and(|major| major < MIN_VERSION) {
            remarks.push(format!("Callgate needs Redis {MIN_VERSION}.0 or newer"));
        }
        if let Some(policy) = self.maxmemory_policy.as_deref().filter(|policy| *policy != "noeviction") {
            remarks.push(format!(
                "maxmemory-policy {policy}: when memory is full, Redis may delete a token's log, and the token may exceed its \
                 limits; use noeviction"
            ));
        }
        if self.clock_ahead_ms.abs() > 1_000 {
            remarks.push(format!(
                "the clocks of Redis and of this machine are {} ms apart; limits use the clock of Redis",
                self.clock_ahead_ms.abs()
            ));
        }
        remarks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_endanger_limits_are_remarked() {
        let good = RedisFacts {
            version: Some("7.0.15".to_owned()),
            mode: None,
            maxmemory_policy: Some("noeviction".to_owned()),
            clock_ahead_ms: -3,
        };
        assert!(good.remarks().is_empty());
        let bad = RedisFacts {
            version: Some("4.0.9".to_owned()),
            maxmemory_policy: Some("allkeys-lru".to_owned()),
            clock_ahead_ms: -3_000,
            ..good
        };
        assert_eq!(bad.remarks().len(), 3);
    }
}
