//! Tokens in a Redis that is full, or that has evicted what it was given.

use callgate::tokens::{NewToken, TrailFilter};
use redis::Value;

use super::redis_store::Instance;
use super::*;
use crate::support::redis::RedisServer;

/// Makes a Redis full.
async fn fill(instance: &Instance) {
    let _: Value = instance.command(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    let refused = instance.redis.call(redis::cmd("SET").arg("x").arg("y")).await;
    assert!(format!("{refused:?}").contains("OOM"), "{refused:?}");
}

#[tokio::test]
async fn tokens_can_be_changed_and_revoked_while_redis_is_full() {
    let server = RedisServer::start();
    let instance = Instance::on(&server).await;
    let (text, record) = instance.create(|_| ()).await;
    let (other, _) = instance.create(|_| ()).await;
    fill(&instance).await;
    let edit = async |operation| instance.registry.operate(&record.id, operation, None, &by()).await.unwrap();
    assert!(edit(Operation::Disable).await.changed && edit(Operation::Enable).await.changed);
    instance.registry.rotate(&record.id, std::time::Duration::from_secs(60), None, &by()).await.unwrap();
    assert!(edit(Operation::Revoke).await.changed);
    assert_eq!(refusal(ask(&instance.authenticator, &text).await), Some(Refusal::Invalid(Reason::Revoked)));
    assert_eq!(instance.registry.revoke_account("acme", &by()).await.unwrap().tokens.len(), 1);
    assert_eq!(refusal(ask(&instance.authenticator, &other).await), Some(Refusal::Invalid(Reason::Revoked)));
    // What was done is in the trail, and nothing is left to be taken there.
    let trail = instance.registry.trail(&TrailFilter::default(), None, 100, SystemTime::now()).await.unwrap();
    assert_eq!(trail.entries.len(), 7, "{trail:?}");
    assert_eq!(instance.command::<usize>(&["ZCARD", "callgate:audit:due"]).await, 0);
    // New tokens would fill it further.
    let token = NewToken::generate("kal_live").unwrap();
    let refused = instance.store(instance.record(token.id.clone(), token.hash, |_| ())).await.unwrap_err();
    assert!(matches!(refused, RegistryError::Redis(_)), "{refused:?}");
    let none: Option<u64> = instance.command(&["ZSCORE", "callgate:tokens", &token.id]).await;
    assert_eq!(none, None);
}

#[tokio::test]
async fn an_account_is_revoked_although_the_list_of_tokens_was_evicted() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let instance = Instance::on(&server).await;
    let (text, record) = instance.create(|_| ()).await;
    let _: u8 = instance.command(&["DEL", "callgate:tokens"]).await;
    let revoked = instance.registry.revoke_account("acme", &by()).await.unwrap();
    assert_eq!((revoked.tokens.len(), revoked.lost), (1, 0));
    assert_eq!(refusal(ask(&instance.authenticator, &text).await), Some(Refusal::Invalid(Reason::Revoked)));
    // It is listed again.
    assert_eq!(instance.list().await.unwrap()[0].id, record.id);
}

#[tokio::test]
async fn a_lost_record_is_reported_as_lost() {
    let server = RedisServer::start();
    let instance = Instance::on(&server).await;
    let (_, record) = instance.create(|draft| draft.account = "other".into()).await;
    let key = format!("callgate:{{{}}}:token", record.id);
    let _: u8 = instance.command(&["DEL", &key]).await;
    let lost = instance.revoke(&record.id).await.unwrap_err();
    assert!(matches!(&lost, RegistryError::Lost { id } if *id == record.id), "{lost:?}");
    // One that is younger than a minute may be about to be made.
    assert_eq!(instance.registry.revoke_account("acme", &by()).await.unwrap().lost, 0);
    let _: u8 = instance.command(&["ZADD", "callgate:tokens", "100", &record.id]).await;
    assert_eq!(instance.registry.revoke_account("acme", &by()).await.unwrap().lost, 1);

    // With enough of a filling, Redis evicts something.
    let _: Value = instance.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]).await;
    let script = "for i = 1, 100 do redis.call('SET', i, string.rep('x', 10000)) end";
    let _: Value = instance.command(&["EVAL", script, "0"]).await;
    let _: Value = instance.command(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    until("an eviction", async || instance.redis.retention().await.evicted > 0).await;
    let unknown = instance.revoke("nobodyknows1").await.unwrap_err();
    assert!(matches!(unknown, RegistryError::Evicted { .. } | RegistryError::Lost { .. }), "{unknown:?}");
}
