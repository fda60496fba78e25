//! Whether servers keep what they are given: what may be evicted from their memory, and what a restart forgets.

use redis::{Cmd, FromRedisValue, Value};

use super::client::Redis;

/// What the servers report about it, as far as the user of Redis may ask.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Retention {
    /// A `maxmemory-policy` that deletes keys when memory is full.
    pub eviction_policy: Option<String>,
    /// Keys that were evicted since the servers started.
    pub evicted: u64,
    /// A server writes nothing to its disk.
    pub forgets: bool,
}

impl Redis {
    /// Asks all servers. One that does not answer, or may not be asked, is left out.
    pub async fn retention(&self) -> Retention {
        let mut all = Retention::default();
        for server in 0..self.servers() {
            let info = async |section| self.text(server, redis::cmd("INFO").arg(section)).await.unwrap_or_default();
            let [memory, stats, persistence] = [info("memory").await, info("stats").await, info("persistence").await];
            let policy = field(&memory, "maxmemory_policy").filter(|policy| *policy != "noeviction");
            all.eviction_policy = all.eviction_policy.or(policy.map(str::to_owned));
            all.evicted += field(&stats, "evicted_keys").and_then(|count| count.parse().ok()).unwrap_or(0);
            if field(&persistence, "aof_enabled") == Some("0") {
                let save = self.call_server(server, redis::cmd("CONFIG").arg("GET").arg("save")).await;
                let save = save.ok().and_then(|save| Vec::<String>::from_redis_value(save).ok()?.pop());
                all.forgets |= save.is_some_and(|save| save.is_empty());
            }
        }
        all
    }

    async fn text(&self, server: usize, command: &Cmd) -> Option<String> {
        let answer: Value = self.call_server(server, command).await.ok()?;
        String::from_redis_value(answer).ok()
    }
}

impl Retention {
    /// Whether keys may have been evicted, or may be.
    #[must_use]
    pub fn may_evict(&self) -> bool {
        self.eviction_policy.is_some() || self.evicted > 0
    }

    /// The warnings, without those of what has been `reported` already.
    #[must_use]
    pub fn news(&self, reported: &Self) -> Vec<String> {
        let mut news = self.clone();
        if reported.may_evict() {
            (news.eviction_policy, news.evicted) = (None, 0);
        }
        news.forgets &= !reported.forgets;
        news.warnings()
    }

    /// What an operator should change, one line each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let policy = self.eviction_policy.as_deref().unwrap_or("noeviction");
        let eviction = self.may_evict().then(|| {
            format!(
                "Redis may evict tokens and logs of limits when its memory is full (maxmemory-policy {policy}, {} keys \
                 evicted since its start): set maxmemory-policy to noeviction",
                self.evicted
            )
        });
        let forgets = self.forgets.then(|| {
            "Redis keeps nothing on disk (appendonly is off and save is empty), so a restart forgets all tokens: set \
             appendonly to yes"
                .to_owned()
        });
        eviction.into_iter().chain(forgets).collect()
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
