//! The operator's Redis: how it is reached, what it says of itself, and the throw-away tokens in it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use futures_util::future;
use redis::{Cmd, FromRedisValue};
use serde::Serialize;

use crate::config::{self, Config, Plan, RedisNode, RedisServers, RedisStore, Severity, Store};
use crate::limits::DECIDE;
use crate::store::{Redis, Script};

/// The version of every record here.
pub(super) const VERSION: u64 = 1;

/// Records delete themselves after this time (ms), in case nobody else does.
const RECORD_TTL_MS: u64 = 900_000;
/// The oldest Redis whose scripts may read the clock and write.
const OLDEST: u32 = 5;

/// A Redis to test, with a namespace of its own in it.
pub(super) struct Target {
    /// Where it is, without user and password.
    pub(super) address: String,
    /// How its instances reach it.
    pub(super) store: RedisStore,
    redis: Redis,
}

/// What a Redis says of itself.
#[derive(Debug, Serialize)]
pub(super) struct Facts {
    pub(super) version: Option<String>,
    /// `standalone`, `sentinel` or `cluster`.
    pub(super) mode: Option<String>,
    pub(super) maxmemory_policy: Option<String>,
    /// How far its clock is ahead of this machine's, give or take half a round trip.
    pub(super) clock_ahead_ms: i64,
}

/// The plans of the test.
pub(super) struct Plans {
    /// The usual limits.
    pub(super) usual: Arc<Plan>,
    /// Limits of which one slides during the test.
    pub(super) sliding: Arc<Plan>,
    /// Limits that are never reached.
    pub(super) wide: Arc<Plan>,
}

/// The configuration of the test's instances: with a deadline that a slow line can keep.
const CONFIGURATION: &str = r#"
tls: { certificates: [{ cert: cert.pem, key: key.pem }] }
store: { redis: { url: "${URL}", namespace: "${NAMESPACE}", deadline: 2s, connect_timeout: 5s, on_failure: deny } }
plans:
  usual: { limits: { minute: 60/1m, hour: 1000/1h } }
  sliding: { limits: { second: 20/1s, hour: 50/1h } }
  wide: { limits: { minute: 900000/1m, hour: 1000000/1h } }
default_plan: usual
routes: [{ path: /, upstream: none }]
upstreams: { none: { endpoints: ["http://127.0.0.1:1"] } }
"#;

/// What is tested, and with which plans.
pub(super) struct Configured {
    /// Where it is, without user and password.
    pub(super) address: String,
    pub(super) store: RedisStore,
    pub(super) plans: Plans,
}

impl Configured {
    /// The Redis at a URL.
    ///
    /// # Errors
    /// What is wrong with the URL, without repeating it.
    pub(super) fn by_url(url: &str) -> Result<Self, String> {
        let namespace = format!("cg-selftest-{}", nonce());
        let variable = |name: &str| match name {
            "URL" => Some(url.to_owned()),
            "NAMESPACE" => Some(namespace.clone()),
            _ => None,
        };
        let loaded = config::parse(Path::new("self-test"), CONFIGURATION, &variable);
        let Config { store, plans, .. } = loaded
            .map_err(|problems| {
                let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
                errors.map(|problem| problem.message.clone()).collect::<Vec<_>>().join("; ")
            })?
            .config;
        let plan = |name: &str| plans.get(name).cloned().ok_or_else(|| format!("there is no plan {name}"));
        let plans = Plans { usual: plan("usual")?, sliding: plan("sliding")?, wide: plan("wide")? };
        match store {
            Store::Redis(store) => Ok(Self { address: address(url), store: *store, plans }),
            Store::Memory => Err("is not a Redis".to_owned()),
        }
    }

    /// The Redis of a configuration, with keys in its namespace.
    ///
    /// # Errors
    /// What is wrong with the configuration, or that it has no Redis.
    pub(super) fn by_file(file: &Path) -> anyhow::Result<Self> {
        let Store::Redis(configured) = config::load(file)?.config.store else {
            bail!("{}: `store: memory` has no Redis to test (set store.redis)", file.display());
        };
        let own = Self::by_url("redis://127.0.0.1").map_err(anyhow::Error::msg)?;
        let address = match &configured.servers {
            RedisServers::Single(node) => node.to_string(),
            RedisServers::Cluster(nodes) => format!("the cluster of {}", listed(nodes)),
            RedisServers::Sentinel(sentinel) => format!("{} behind {}", sentinel.service, listed(&sentinel.nodes)),
        };
        let namespace = format!("{}:selftest-{}", configured.namespace, nonce()).into();
        let RedisStore { deadline, connect_timeout, on_failure, .. } = own.store;
        let store = RedisStore { namespace, deadline, connect_timeout, on_failure, ..*configured };
        Ok(Self { address, store, plans: own.plans })
    }
}

/// Short enough for keys to be as long as a gateway's: their length is part of what a token takes.
fn nonce() -> String {
    std::iter::repeat_with(fastrand::lowercase).take(6).collect()
}

fn listed(nodes: &[RedisNode]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A URL without user, password and options.
fn address(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let host = host.split(['?', '#']).next().unwrap_or_default();
    if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") }
}

impl Target {
    /// Connects, and makes sure that Redis takes the decision script.
    ///
    /// # Errors
    /// Why Redis can't be used, without the URL's password.
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

    /// What Redis says of itself; what it doesn't tell, because this user may not ask, is left out.
    pub(super) async fn facts(&self) -> anyhow::Result<Facts> {
        let server: String = self.ask(redis::cmd("INFO").arg("server")).await.unwrap_or_default();
        let memory: String = self.ask(redis::cmd("INFO").arg("memory")).await.unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(|value| value.trim().to_owned())
        };
        let sent = Instant::now();
        let (seconds, micros): (u64, u64) = self.ask(&mut redis::cmd("TIME")).await?;
        let half_ms = sent.elapsed().as_millis() as i64 / 2;
        let here_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        Ok(Facts {
            version: field(&server, "redis_version"),
            mode: field(&server, "redis_mode"),
            maxmemory_policy: field(&memory, "maxmemory_policy"),
            clock_ahead_ms: (seconds * 1_000 + micros / 1_000) as i64 + half_ms - here_ms,
        })
    }

    /// Makes the records of tokens.
    pub(super) async fn issue(&self, tokens: &[String]) -> anyhow::Result<()> {
        let records = tokens.iter().map(async |id| {
            let key = self.key(id, "token");
            self.ask::<u32>(redis::cmd("HSET").arg(&key).arg("version").arg(VERSION)).await?;
            self.ask::<u32>(redis::cmd("PEXPIRE").arg(&key).arg(RECORD_TTL_MS)).await
        });
        future::try_join_all(records).await.context("writing the records of the tokens")?;
        Ok(())
    }

    /// Deletes everything of tokens, and says how many keys that was.
    pub(super) async fn delete(&self, tokens: &[String]) -> anyhow::Result<u64> {
        let keys = ["token", "log", "calls", "merged"];
        let deleted = tokens.iter().map(async |id| {
            self.ask::<u64>(redis::cmd("DEL").arg(keys.map(|name| self.key(id, name)).as_slice())).await
        });
        Ok(future::try_join_all(deleted).await?.into_iter().sum())
    }

    /// Bytes that the log of a token takes in Redis.
    pub(super) async fn bytes(&self, token: &str) -> anyhow::Result<u64> {
        self.ask(redis::cmd("MEMORY").arg("USAGE").arg(self.key(token, "log"))).await
    }

    /// Cuts the connections that were given this `name`, and no others; says how many.
    pub(super) async fn cut(&self, name: &str) -> anyhow::Result<usize> {
        let wanted = format!("name={name}");
        let mut cut = 0;
        // The number of a connection means something to its server alone.
        for server in 0..self.redis.servers() {
            let list = self.redis.call_server(server, redis::cmd("CLIENT").arg("LIST")).await?;
            let list = String::from_redis_value(list)?;
            let ours = list.lines().filter(|line| line.split(' ').any(|field| field == wanted));
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

    async fn ask<T: FromRedisValue>(&self, command: &mut Cmd) -> anyhow::Result<T> {
        Ok(T::from_redis_value(self.redis.call(command).await?)?)
    }
}

impl Facts {
    /// What the operator should know, or change.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let major = self.version.as_ref().and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        if major.is_some_and(|major| major < OLDEST) {
            remarks.push(format!("Callgate needs Redis {OLDEST}.0 or newer"));
        }
        if let Some(policy) = self.maxmemory_policy.as_deref().filter(|policy| *policy != "noeviction") {
            remarks.push(format!(
                "maxmemory-policy {policy}: when memory is full, Redis may drop a token's log and admit it anew; \
                 noeviction is safer"
            ));
        }
        if self.clock_ahead_ms.abs() > 1_000 {
            remarks.push(format!(
                "Redis's clock and this machine's are {} ms apart; limits go by Redis's",
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
    fn an_address_holds_no_secret() {
        assert_eq!(address("redis://127.0.0.1:6379"), "redis://127.0.0.1:6379");
        assert_eq!(address("rediss://me:p%40ss@redis.example:6380/2?protocol=resp3"), "rediss://redis.example:6380/2");
        assert_eq!(address("redis://:a/b@c@host"), "redis://host");
        assert_eq!(address("file:/run/secrets/redis-url"), "file:/run/secrets/redis-url");
    }

    #[test]
    fn a_bad_url_is_not_repeated() {
        for url in ["http://:hunter2@host", "redis://:hunter2@host:port", "hunter2"] {
            let told = Configured::by_url(url).map(|_| ()).unwrap_err();
            assert!(!told.contains("hunter2") && told.contains("redis://"), "{told}");
        }
        let [one, other] = [(); 2].map(|()| Configured::by_url("redis://:hunter2@host").unwrap().store);
        assert_ne!(one.namespace, other.namespace);
        assert!(!format!("{one:?}").contains("hunter2"));
    }

    #[test]
    fn what_endangers_limits_is_remarked() {
        let good = Facts {
            version: Some("7.0.15".to_owned()),
            mode: None,
            maxmemory_policy: Some("noeviction".to_owned()),
            clock_ahead_ms: -3,
        };
        assert!(good.remarks().is_empty());
        let bad = Facts {
            version: Some("4.0.9".to_owned()),
            maxmemory_policy: Some("allkeys-lru".to_owned()),
            clock_ahead_ms: -3_000,
            ..good
        };
        assert_eq!(bad.remarks().len(), 3);
    }
}
