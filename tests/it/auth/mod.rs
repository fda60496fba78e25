//! Authentication against a real Redis and a real token file, and the commands that manage tokens.

mod actions;
mod broken_off;
mod commands;
mod file_store;
mod full_redis;
mod import;
mod redis_store;
mod usage;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use callgate::auth::{Authenticator, Failures, FileStore, Principal, Reason, Refusal, Refused, TokenCache};
use callgate::config::{self, Config, FailureLimits};
use callgate::store::Redis;
use callgate::tokens::{ActionContext, Actor, Filter, Operation, Plans, Record, Registry, RegistryError};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};

/// A configuration whose store and tokens are as told.
fn config_with(store: &str, tokens: &str) -> Config {
    let text = format!(
        "tls: {{ certificates: [{{ cert: c.pem, key: k.pem }}] }}\n\
         store: {store}\n\
         tokens: {tokens}\n\
         plans:\n  standard: {{ limits: {{ minute: 60/1m, hour: 1000/1h }} }}\n  enterprise: {{ limits: {{ minute: 6000/1m }} }}\n\
         routes:\n  - {{ path: /api/v1/calls, permission: \"calls:read\", upstream: api }}\n\
         upstreams:\n  api: {{ endpoints: [\"http://127.0.0.1:3000\"] }}\n"
    );
    let loaded = config::parse(Path::new("/nowhere/callgate.yaml"), &text, &|_| None);
    loaded.unwrap_or_else(|problems| panic!("{problems}")).config
}

/// The client's address, where it does not matter.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The token file as a gateway reads it.
fn open_file(config: &Config, path: &Path) -> Arc<FileStore> {
    Arc::new(FileStore::open(path, Arc::new(Plans::new(config))).unwrap())
}

/// A gateway's authentication by a token file.
fn on_file(config: &Config, file: Arc<FileStore>) -> Authenticator {
    Authenticator::with_file(Arc::new(config.clone()), Arc::new(Plans::new(config)), file, failures(config))
}

/// The same by Redis, with an empty cache.
fn on_redis(config: &Config, redis: Redis) -> Authenticator {
    let (cache, plans) = (Arc::new(TokenCache::new(config.tokens.cache_size)), Arc::new(Plans::new(config)));
    Authenticator::with_redis(Arc::new(config.clone()), plans, redis, cache, failures(config))
}

/// Failures without a bound: tests ask often until something is no longer refused.
fn failures(config: &Config) -> Arc<Failures> {
    Arc::new(Failures::new(&FailureLimits { limit: None, ..config.tokens.failures.clone() }))
}

fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
    headers
}

async fn ask(authenticator: &Authenticator, token: &str) -> Result<Arc<Principal>, Refused> {
    authenticator.authenticate(&bearer(token), CLIENT, SystemTime::now()).await
}

/// The refusal, or `None`: principals have no equality.
fn refusal(result: Result<Arc<Principal>, Refused>) -> Option<Refusal> {
    result.err().map(Refusal::from)
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    crate::support::eventually(what, async || condition().await.then_some(())).await;
}

fn by() -> ActionContext {
    ActionContext { actor: Actor::person("tester", "here"), now: SystemTime::now() }
}

/// All records, by pages.
async fn all(registry: &Registry) -> Result<Vec<Record>, RegistryError> {
    let (mut records, mut after) = (Vec::new(), None);
    loop {
        let now = SystemTime::now();
        let listing = registry.list(&Filter::default(), after.as_deref(), 100, now).await?;
        records.extend(listing.tokens.into_iter().map(|token| token.record));
        after = listing.next;
        if after.is_none() {
            return Ok(records);
        }
    }
}
