//! Tokens in Redis.

use std::time::UNIX_EPOCH;

use callgate::config::Store;
use callgate::store::{Redis, StoreHealth};
use callgate::tokens::{Change, Draft, Edited, NewToken, Record, Registry, RegistryError, TokenHash};
use prometheus::IntGauge;
use redis::{FromRedisValue, Value};

use super::*;
use crate::support::redis::RedisServer;

/// An instance on a Redis, as a gateway would have it, and the side of those who issue tokens.
pub(super) struct Instance {
    config: Config,
    pub(super) redis: Redis,
    pub(super) authenticator: Authenticator,
    pub(super) registry: Registry,
}

impl Instance {
    pub(super) async fn on(server: &RedisServer) -> Self {
        Self::with(server, "{ cache_ttl: 60s }").await
    }

    async fn with(server: &RedisServer, tokens: &str) -> Self {
        let config = config_with(&format!("{{ redis: {{ url: \"{}\", deadline: 2s }} }}", server.url()), tokens);
        let redis = connect(&config).await;
        let authenticator = on_redis(&config, redis.clone());
        let registry = Registry::with_redis(&config, redis.clone());
        Self { config, redis, authenticator, registry }
    }

    pub(super) async fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(*word);
        });
        T::from_redis_value(self.redis.call(&command).await.unwrap()).unwrap()
    }

    /// Makes an own token and stores it; returns its text and record.
    pub(super) async fn create(&self, change: impl FnOnce(&mut Draft)) -> (String, Record) {
        let token = NewToken::generate("kal_live").unwrap();
        let record = self.record(token.id, token.hash, change);
        self.store(record.clone()).await.unwrap();
        (token.secret.expose().to_owned(), record)
    }

    pub(super) async fn store(&self, record: Record) -> Result<Edited, RegistryError> {
        self.registry.create(record, &by()).await
    }

    pub(super) async fn revoke(&self, id: &str) -> Result<Edited, RegistryError> {
        self.registry.operate(id, Operation::Revoke, None, &by()).await
    }

    pub(super) async fn list(&self) -> Result<Vec<Record>, RegistryError> {
        all(&self.registry).await
    }

    pub(super) fn record(&self, id: String, hash: TokenHash, change: impl FnOnce(&mut Draft)) -> Record {
        let mut draft = Draft {
            name: "Dialler".into(),
            account: "acme".into(),
            permissions: vec!["calls:read".into()],
            ..Draft::default()
        };
        change(&mut draft);
        draft.into_record(&Plans::new(&self.config), id, hash, SystemTime::now()).unwrap()
    }

    /// The version in Redis, as the limiter's script reads it.
    async fn version(&self, id: &str) -> u64 {
        let key = format!("callgate:{{{id}}}:token");
        self.command(&["HGET", &key, "version"]).await
    }
}

async fn connect(config: &Config) -> Redis {
    let Store::Redis(store) = &config.store else { panic!("it is Redis") };
    let gauge = IntGauge::new("up", "up").unwrap();
    Redis::open(store, Arc::new(StoreHealth::new(gauge))).await.unwrap()
}

#[tokio::test]
async fn a_token_works_from_its_creation_to_its_revocation() {
    let server = RedisServer::start();
    let instance = Instance::on(&server).await;
    let token = NewToken::generate("kal_live").unwrap();
    let text = token.secret.expose().to_owned();
    assert_eq!(refusal(ask(&instance.authenticator, &text).await), Some(Refusal::Invalid(Reason::Unknown)));

    // It was just refused as unknown, and works all the same the moment it is there.
    let record = instance.record(token.id.clone(), token.hash, |draft| draft.plan = Some("enterprise".into()));
    instance.store(record).await.unwrap();
    let principal = ask(&instance.authenticator, &text).await.unwrap();
    assert_eq!((&*principal.id, &*principal.account, &*principal.plan.name), (&*token.id, "acme", "enterprise"));
    assert_eq!(principal.version, instance.version(&token.id).await);
    assert!(principal.may("calls:read") && !principal.may("calls:write"));

    let revoked = instance.revoke(&token.id).await.unwrap();
    assert!(revoked.changed);
    assert!(instance.version(&token.id).await > principal.version);
    // The cached record is used until the limiter's script finds its version stale.
    assert!(ask(&instance.authenticator, &text).await.is_ok());
    let again = instance.authenticator.reread(&principal, &bearer(&text), CLIENT, SystemTime::now()).await;
    assert_eq!(refusal(again), Some(Refusal::Invalid(Reason::Revoked)));
    assert_eq!(refusal(ask(&instance.authenticator, &text).await), Some(Refusal::Invalid(Reason::Revoked)));

    let again = instance.revoke(&token.id).await.unwrap();
    assert!(!again.changed && again.record.revoked_at == revoked.record.revoked_at);
}

#[tokio::test]
async fn a_cached_token_costs_no_redis_command_and_an_unknown_one_costs_one() {
    let server = RedisServer::start();
    let instance = Instance::on(&server).await;
    let (text, _) = instance.create(|_| ()).await;
    let calls = async || {
        let text: String = instance.command(&["INFO", "commandstats"]).await;
        let line = text.lines().find(|line| line.starts_with("cmdstat_hmget")).unwrap_or("calls=0,").to_owned();
        line.split("calls=").nth(1).unwrap().split(',').next().unwrap().parse::<usize>().unwrap()
    };
    let before = calls().await;
    for _ in 0..50 {
        ask(&instance.authenticator, &text).await.unwrap();
    }
    assert_eq!(calls().await - before, 1);
    let unknown = NewToken::generate("kal_live").unwrap();
    ask(&instance.authenticator, unknown.secret.expose()).await.unwrap_err();
    assert_eq!(calls().await - before, 2);
    // A wrong checksum is refused with no look-up at all.
    let mistyped = format!("{}{}", &text[..text.len() - 1], if text.ends_with('0') { '1' } else { '0' });
    assert_eq!(refusal(ask(&instance.authenticator, &mistyped).await), Some(Refusal::Invalid(Reason::Malformed)));
    assert_eq!(calls().await - before, 2);
}

#[tokio::test]
async fn a_right_id_with_a_wrong_secret_is_unknown() {
    let server = RedisServer::start();
    let instance = Instance::on(&server).await;
    let (text, record) = instance.create(|_| ()).await;
    // The same id, another secret, a good checksum: only the hash tells them apart.
    let forged = {
        let other = NewToken::generate("kal_live").unwrap();
        let body = format!("kal_live_{}{}", record.id, &other.secret.expose()["kal_live_".len() + 12..][..27]);
        let mut checksum = crc32fast::hash(body.as_bytes());
        let mut digits = [0u8; 6];
        for digit in digits.iter_mut().rev() {
            *digit = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[(checksum % 62) as usize];
            checksum /= 62;
        }
        format!("{body}{}", String::from_utf8(digits.to_vec()).unwrap())
    };
    assert_eq!(refusal(ask(&instance.authenticator, &forged).await), Some(Refusal::Invalid(Reason::Unknown)));
    assert!(ask(&instance.authenticator, &text).await.is_ok());
}

#[tokio::test]
async fn foreign_tokens_are_found_by_the_hash_of_the_whole_or_the_part_after_the_bar() {
    let server = RedisServer::start();
    let instance = Instance::on(&server).await;
    for (registered, presented) in [
        ("opaque-token-1", "opaque-token-1"),
        ("whole|of-it", "whole|of-it"),
        ("secret-of-sanctum", "17|secret-of-sanctum"),
        ("another-secret", "another-secret"),
    ] {
        let hash = TokenHash::of(registered);
        instance.store(instance.record(hash.derived_id(), hash, |_| ())).await.unwrap();
        let principal = ask(&instance.authenticator, presented).await.unwrap();
        assert_eq!(*principal.id, hash.derived_id());
        let again = instance.store(instance.record(hash.derived_id(), hash, |_| ())).await;
        assert!(matches!(again, Err(RegistryError::Exists(id)) if id == hash.derived_id()));
    }
    assert_eq!(
        refusal(ask(&instance.authenticator, "17|secret-of-nobody").await),
        Some(Refusal::Invalid(Reason::Unknown))
    );
}

#[tokio::test]
async fn tokens_keep_working_when_the_prefix_changes() {
    let server = RedisServer::start();
    let old = Instance::on(&server).await;
    let (text, record) = old.create(|_| ()).await;
    let new = Instance::with(&server, "{ prefix: acme }").await;
    assert_eq!(*ask(&new.authenticator, &text).await.unwrap().id, record.id);
    // One of another Callgate, of which only the hash was registered.
    let other = NewToken::generate("other").unwrap();
    new.store(new.record(other.hash.derived_id(), other.hash, |_| ())).await.unwrap();
    assert_eq!(*ask(&new.authenticator, other.secret.expose()).await.unwrap().id, other.hash.derived_id());
}

#[tokio::test]
async fn without_redis_cached_tokens_work_and_others_are_unavailable() {
    let mut server = RedisServer::start();
    let instance = Instance::on(&server).await;
    let (known, _) = instance.create(|_| ()).await;
    let (stranger, _) = instance.create(|_| ()).await;
    let principal = ask(&instance.authenticator, &known).await.unwrap();
    server.kill();
    until("the outage is noticed", async || !instance.redis.is_up()).await;

    assert!(ask(&instance.authenticator, &known).await.is_ok());
    for unknown in [stranger.as_str(), "opaque-token-1", "17|opaque-token-1"] {
        assert_eq!(refusal(ask(&instance.authenticator, unknown).await), Some(Refusal::Unavailable));
    }
    // A minute after Redis last confirmed the record it may have been revoked long ago.
    let later = SystemTime::now() + Duration::from_secs(61);
    let result = instance.authenticator.authenticate(&bearer(&known), CLIENT, later).await;
    assert_eq!(refusal(result), Some(Refusal::Unavailable));
    instance.authenticator.confirm(&principal, instance.authenticator.epoch(), later);
    assert!(instance.authenticator.authenticate(&bearer(&known), CLIENT, later).await.is_ok());

    server.restart();
    until("Redis is back", async || instance.redis.is_up()).await;
    // It came back empty: nobody is known any more, once somebody asks.
    let result = instance.authenticator.reread(&principal, &bearer(&known), CLIENT, SystemTime::now()).await;
    assert_eq!(refusal(result), Some(Refusal::Invalid(Reason::Unknown)));
}

#[tokio::test]
async fn a_frozen_redis_is_unavailable_too() {
    let server = RedisServer::start();
    let instance = Instance::on(&server).await;
    let (text, _) = instance.create(|_| ()).await;
    server.pause();
    let result = ask(&instance.authenticator, &text).await;
    server.resume();
    assert_eq!(refusal(result), Some(Refusal::Unavailable));
    until("it answers again", async || ask(&instance.authenticator, &text).await.is_ok()).await;
}

#[tokio::test]
async fn expiry_is_checked_at_every_use_and_can_be_extended() {
    let mut server = RedisServer::start();
    let instance = Instance::on(&server).await;
    let start = SystemTime::now();
    let (text, _) = instance.create(|draft| draft.expires_at = Some(start + Duration::from_secs(30))).await;
    let at = async |seconds| {
        let now = start + Duration::from_secs(seconds);
        refusal(instance.authenticator.authenticate(&bearer(&text), CLIENT, now).await)
    };
    assert_eq!(at(28).await, None);
    assert_eq!(at(31).await, Some(Refusal::Invalid(Reason::Expired)));
    // Put off on the other side: the cached end is not believed.
    let id = &text["kal_live_".len()..][..12];
    let key = format!("callgate:{{{id}}}:token");
    let mut record = instance.list().await.unwrap().remove(0);
    record.expires_at = None;
    let json = serde_json::to_string(&record).unwrap();
    let _: Value = instance.command(&["HSET", &key, "version", "9999999999999999", "record", &json]).await;
    assert_eq!(at(31).await, None);
    server.kill();
}

#[tokio::test]
async fn an_expired_token_is_refused_as_expired_during_an_outage() {
    let mut server = RedisServer::start();
    let instance = Instance::on(&server).await;
    let start = SystemTime::now();
    let (text, _) = instance.create(|draft| draft.expires_at = Some(start + Duration::from_secs(30))).await;
    ask(&instance.authenticator, &text).await.unwrap();
    server.kill();
    let result = instance.authenticator.authenticate(&bearer(&text), CLIENT, start + Duration::from_secs(31)).await;
    assert_eq!(refusal(result), Some(Refusal::Invalid(Reason::Expired)));
}

#[tokio::test]
async fn an_unreadable_record_is_unavailable_and_not_invalid() {
    let server = RedisServer::start();
    let instance = Instance::on(&server).await;
    let (text, record) = instance.create(|_| ()).await;
    let key = format!("callgate:{{{}}}:token", record.id);
    let good = serde_json::to_string(&record).unwrap();
    for bad in [
        "{",
        "{}",
        &good.replace(&record.id, "another0id00"),
        &good.replace("acme", "a\\r\\nX-Callgate-Plan: gold"),
        &good.replace("\"sha256\":\"", "\"sha256\":\"zz"),
    ] {
        assert_ne!(bad, good);
        let _: Value = instance.command(&["HSET", &key, "record", bad]).await;
        assert_eq!(refusal(ask(&instance.authenticator, &text).await), Some(Refusal::Unavailable), "{bad}");
        let error = instance.list().await.unwrap_err().to_string();
        assert!(error.contains(&record.id) && !error.contains("gold"), "{error}");
    }
    let _: Value = instance.command(&["DEL", &key]).await;
    let _: Value = instance.command(&["SET", &key, "x"]).await;
    assert_eq!(refusal(ask(&instance.authenticator, &text).await), Some(Refusal::Unavailable), "another type of key");
}

#[tokio::test]
async fn a_version_is_never_used_twice() {
    let server = RedisServer::start();
    let instance = Instance::on(&server).await;
    let (_, record) = instance.create(|_| ()).await;
    let first = instance.version(&record.id).await;
    let key = format!("callgate:{{{}}}:token", record.id);
    let _: Value = instance.command(&["DEL", &key]).await;
    instance.store(record.clone()).await.unwrap();
    let second = instance.version(&record.id).await;
    assert!(second > first);
    // A server whose clock is behind: the version still grows.
    let _: Value = instance.command(&["HSET", &key, "version", "8999999999999999"]).await;
    instance.revoke(&record.id).await.unwrap();
    assert_eq!(instance.version(&record.id).await, 9_000_000_000_000_000);
}

#[tokio::test]
async fn writers_do_not_overwrite_each_other() {
    let server = RedisServer::start();
    let instance = Instance::on(&server).await;
    let (_, record) = instance.create(|_| ()).await;
    let version = instance.version(&record.id).await;
    instance.revoke(&record.id).await.unwrap();
    let mine = Change { name: Some("Renamed".into()), ..Change::default() };
    let late = instance.registry.update(&record.id, mine.clone(), Some(version), &by()).await;
    assert!(matches!(late, Err(RegistryError::Stale { .. })), "written since it was read");
    let anyway = instance.registry.update(&record.id, mine, None, &by()).await;
    assert!(matches!(anyway, Err(RegistryError::Revoked(_))));
    assert_eq!(instance.list().await.unwrap()[0].name, "Dialler");
}

#[tokio::test]
async fn an_interrupted_write_leaves_no_token() {
    let mut server = RedisServer::start();
    let instance = Instance::on(&server).await;
    let (kept, record) = instance.create(|_| ()).await;
    // Half a creation, as when the writer dies after the index: long ago, and just now.
    let _: Value = instance.command(&["ZADD", "callgate:tokens", "1000", "orphan000001"]).await;
    let just_now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().to_string();
    let _: Value = instance.command(&["ZADD", "callgate:tokens", &just_now, "orphan000002"]).await;
    let listed = instance.list().await.unwrap();
    assert_eq!(listed, [record]);
    let left: Vec<String> = instance.command(&["ZRANGE", "callgate:tokens", "0", "-1"]).await;
    assert!(!left.contains(&"orphan000001".to_owned()), "an old one is taken off the index");
    assert!(left.contains(&"orphan000002".to_owned()), "a young one may be about to get its record");

    // A server that dies under a flood of creations: what was acknowledged and what was not, none is half there.
    let creations = futures_util::future::join_all((0..200).map(|_| async {
        let token = NewToken::generate("kal_live").unwrap();
        let record = instance.record(token.id.clone(), token.hash, |_| ());
        (token, instance.store(record).await.is_ok())
    }));
    let (creations, ()) = tokio::join!(creations, async {
        tokio::task::yield_now().await;
        server.pause();
    });
    server.resume();
    until("it answers again", async || ask(&instance.authenticator, &kept).await.is_ok()).await;
    // The server may still carry out queued commands between two questions: ask until the answers agree.
    until("what works is listed, and what was acknowledged works", async || {
        let Ok(listed) = instance.list().await else { return false };
        for (token, acknowledged) in &creations {
            let works = ask(&instance.authenticator, token.secret.expose()).await.is_ok();
            if works != listed.iter().any(|record| record.id == token.id) || (*acknowledged && !works) {
                return false;
            }
        }
        true
    })
    .await;
    server.kill();
}

#[tokio::test]
async fn a_listing_has_all_pages_in_order() {
    let server = RedisServer::start();
    let instance = Instance::on(&server).await;
    for n in 0..600_u32 {
        let hash = TokenHash::of(&n.to_string());
        let draft = Draft { name: n.to_string(), account: "acme".into(), ..Draft::default() };
        let made = UNIX_EPOCH + Duration::from_secs(u64::from(10_000 - n));
        let record = draft.into_record(&Plans::new(&instance.config), hash.derived_id(), hash, made).unwrap();
        instance.store(record).await.unwrap();
    }
    let listed = instance.list().await.unwrap();
    let names: Vec<u32> = listed.iter().map(|record| record.name.parse().unwrap()).collect();
    assert_eq!(names, (0..600).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn an_unknown_id_gets_the_nearest_id_as_a_suggestion() {
    let server = RedisServer::start();
    let instance = Instance::on(&server).await;
    let (_, record) = instance.create(|_| ()).await;
    let mistyped = format!("{}-", &record.id[..11]);
    let error = instance.revoke(&mistyped).await.unwrap_err().to_string();
    assert_eq!(error, format!("no token has the id \"{mistyped}\" (did you mean \"{}\"?)", record.id));
}
