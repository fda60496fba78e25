//! How tokens are used: counted as they are admitted, written late, and shown.

use callgate::store::{Redis, StoreHealth};
use callgate::tokens::{Draft, Origin, UsageCounts, UsageWriter};
use rustix::process::Signal;
use serde_json::Value;

use super::*;
use crate::support::client::{get, http2};
use crate::support::gateway::Site;
use crate::support::redis::RedisServer;
use crate::support::upstream::Upstream;

fn shown(site: &Site, id: &str) -> Value {
    let output = site.run(&["token", "show", id, "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Five requests that are admitted, whatever comes of them, and two that are not.
async fn use_and_end(site: &Arc<Site>) {
    let token = site.token_with(&[], &["--limit", "minute=5/1m"]);
    let unused = site.token(&[]);
    let version = shown(site, &token.id)["version"].clone();
    let mut gateway = site.serve();
    let began = SystemTime::now() - Duration::from_secs(1);
    let client = http2(&gateway);
    for (path, status) in [("/echo", 200), ("/status/404", 404), ("/echo", 200), ("/status/503", 503), ("/echo", 200)] {
        assert_eq!(get(&client, &gateway, path, &token).await.status(), status);
    }
    for _ in 0..2 {
        assert_eq!(get(&client, &gateway, "/echo", &token).await.status(), 429);
    }
    assert_eq!(shown(site, &token.id)["usage"]["requests"], 0);
    drop(client);
    gateway.signal(Signal::TERM);
    assert!(gateway.wait().await.success());
    let used = shown(site, &token.id);
    assert_eq!((&used["usage"]["requests"], &used["version"]), (&5.into(), &version));
    let last = humantime::parse_rfc3339(used["usage"]["last_used_at"].as_str().unwrap()).unwrap();
    assert!(last >= began && last <= SystemTime::now(), "{used}");
    assert_eq!(shown(site, &unused.id)["usage"], serde_json::json!({ "last_used_at": null, "requests": 0 }));
    let list = String::from_utf8(site.run(&["token", "list"]).stdout).unwrap();
    let line = list.lines().find(|line| line.starts_with(&token.id)).unwrap();
    assert!(
        line.trim_end().ends_with('5') && line.contains(&humantime::format_rfc3339(last).to_string()[..10]),
        "{list}"
    );
}

#[tokio::test]
async fn usage_is_saved_beside_the_record_in_redis() {
    let (redis, upstream) = (RedisServer::start(), Upstream::start().await);
    use_and_end(&Site::on_redis(&redis.url(), ", deadline: 5s", upstream.address, "")).await;
}

#[tokio::test]
async fn usage_is_saved_in_a_file_beside_the_token_file() {
    use std::os::unix::fs::PermissionsExt;
    let upstream = Upstream::start().await;
    let site = Site::in_memory(upstream.address, "  - { path: \"/{*rest}\", upstream: up }");
    use_and_end(&site).await;
    let beside = site.path("tokens.yaml.usage.log");
    assert_eq!(std::fs::metadata(&beside).unwrap().permissions().mode() & 0o777, 0o600);
    // With a damaged usage file, tokens are still listed and uses still counted. What is not in the token file is forgotten.
    std::fs::write(&beside, "{\"half").unwrap();
    let mut tokens = std::fs::OpenOptions::new().append(true).open(site.path("tokens.yaml")).unwrap();
    std::io::Write::write_all(&mut tokens, b"# One was removed.\n").unwrap();
    let config = callgate::config::load(&site.config()).unwrap().config;
    let registry = Arc::new(Registry::with_file(&config, &site.path("tokens.yaml")));
    let records = all(&registry).await.unwrap();
    let book = Arc::new(UsageCounts::default());
    book.note(&records[0].id.as_str().into(), SystemTime::now());
    book.note(&"removed".into(), SystemTime::now());
    UsageWriter::new(registry, book).write().await;
    assert_eq!(shown(&site, &records[0].id)["usage"]["requests"], 1);
    assert!(!std::fs::read_to_string(&beside).unwrap().contains("removed"));
}

#[tokio::test]
async fn usage_that_redis_rejects_is_kept_for_the_next_save() {
    let mut server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let config = config_with(&format!("{{ redis: {{ url: \"{}\", deadline: 5s }} }}", server.url()), "{}");
    let config::Store::Redis(store) = &config.store else { unreachable!() };
    let health = Arc::new(StoreHealth::new(prometheus::IntGauge::new("store_up", "test").unwrap()));
    let redis = Redis::open(store, health).await.unwrap();
    let registry = Arc::new(Registry::with_redis(&config, redis.clone()));
    let book = Arc::new(UsageCounts::default());
    let keeper = UsageWriter::new(registry.clone(), book.clone());
    let mut ids = Vec::new();
    for _ in 0..300 {
        let draft = Draft { name: "n".into(), account: "acme".into(), ..Draft::default() };
        let issued = registry.issue(draft, Origin::New, None, &by()).await.unwrap();
        ids.push(Arc::<str>::from(issued.edited.record.id));
    }
    let used = |ids: &[Arc<str>]| ids.iter().for_each(|id| book.note(id, SystemTime::now()));
    server.kill();
    used(&ids);
    until("the loss to be noticed", async || !redis.is_up()).await;
    keeper.write().await;
    used(&ids[..10]);
    server.restart();
    until("the connection to be back", async || redis.is_up()).await;
    book.note(&"gone00000000".into(), SystemTime::now());
    keeper.write().await;
    let requests = async |id: &str| registry.find(id).await.unwrap().usage.requests;
    assert_eq!((requests(&ids[0]).await, requests(&ids[299]).await), (2, 1));
    // A record that is gone stays gone.
    assert_eq!(server.say::<u64>(&["EXISTS", "callgate:{gone00000000}:token"]), 0);
    keeper.write().await;
    assert_eq!(requests(&ids[0]).await, 2);
}

/// The use of a token as the admin API has it, once it is all there.
async fn over_time(gateway: &crate::support::gateway::Gateway, id: &str, by: &str, wanted: (u64, u64)) -> Value {
    crate::support::eventually(&format!("{wanted:?} requests by {by}"), async || {
        let (status, text) = gateway.admin(&format!("/api/tokens/{id}/usage?by={by}")).await;
        assert_eq!(status, 200, "{text}");
        let usage: Value = serde_json::from_str(&text).unwrap();
        let sum =
            |key: &str| usage["buckets"].as_array().unwrap().iter().filter_map(|it| it[key].as_u64()).sum::<u64>();
        ((sum("admitted"), sum("refused")) == wanted).then_some(usage)
    })
    .await
}

/// Two instances, or one and its successor, count together; what an instance has not saved it saves at its end.
async fn count_over_time(site: &Arc<Site>, most: bool) {
    let token = site.token_with(&[], &["--limit", "minute=5/1m"]);
    let other = site.token_with(&[], &["--limit", "minute=1/1m"]);
    let mut gateway = site.serve();
    let client = http2(&gateway);
    for _ in 0..8 {
        get(&client, &gateway, "/echo", &token).await;
    }
    for _ in 0..3 {
        get(&client, &gateway, "/echo", &other).await;
    }
    drop(client);
    gateway.signal(Signal::TERM);
    assert!(gateway.wait().await.success());
    let gateway = site.serve();
    for by in ["hour", "day"] {
        let usage = over_time(&gateway, &token.id, by, (5, 3)).await;
        let at = humantime::parse_rfc3339(usage["buckets"][0]["at"].as_str().unwrap()).unwrap();
        let length = Duration::from_secs(if by == "hour" { 3_600 } else { 86_400 });
        let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(seconds % length.as_secs(), 0, "{usage}");
        assert!(SystemTime::now().duration_since(at).unwrap() < 2 * length, "{usage}");
    }
    assert_eq!(gateway.admin("/api/tokens/nobody/usage").await.0, 404);
    assert_eq!(gateway.admin(&format!("/api/tokens/{}/usage?by=week", token.id)).await.0, 422);
    let (status, text) = gateway.admin("/api/most-limited?limit=1").await;
    let most_limited: Value = serde_json::from_str(&text).unwrap();
    let wanted = if most { serde_json::json!([{ "id": token.id, "refused": 3 }]) } else { serde_json::json!([]) };
    assert_eq!((status, &most_limited["tokens"]), (200, &wanted), "{text}");
}

#[tokio::test]
async fn use_over_time_is_kept_in_redis() {
    let (redis, upstream) = (RedisServer::start(), Upstream::start().await);
    count_over_time(&Site::on_redis(&redis.url(), ", deadline: 5s", upstream.address, ""), true).await;
}

#[tokio::test]
async fn use_over_time_is_kept_beside_the_token_file() {
    let upstream = Upstream::start().await;
    // Which tokens are limited the most, each process knows of itself.
    count_over_time(&Site::in_memory(upstream.address, "  - { path: \"/{*rest}\", upstream: up }"), false).await;
}

#[tokio::test]
async fn the_use_of_thirty_days_takes_little_room_in_redis_whatever_the_order() {
    let server = RedisServer::start();
    let config = config_with(&format!("{{ redis: {{ url: \"{}\", deadline: 5s }} }}", server.url()), "{}");
    let config::Store::Redis(store) = &config.store else { unreachable!() };
    let health = Arc::new(StoreHealth::new(prometheus::IntGauge::new("store_up", "test").unwrap()));
    let redis = Redis::open(store, health).await.unwrap();
    let registry = Arc::new(Registry::with_redis(&config, redis));
    let draft = Draft { name: "n".into(), account: "acme".into(), ..Draft::default() };
    let id = Arc::<str>::from(registry.issue(draft, Origin::New, None, &by()).await.unwrap().edited.record.id);
    let book = Arc::new(UsageCounts::default());
    let keeper = UsageWriter::new(registry.clone(), book.clone());
    let now = SystemTime::now();
    let hours_ago = |hours: u32| now - Duration::from_secs(3_600) * hours;
    let key = format!("callgate:{{{id}}}:usage");
    let length = || server.say::<usize>(&["STRLEN", &key]);
    for hours in [800, 719, 5, 7, 6, 5] {
        book.note(&id, hours_ago(hours));
        keeper.write().await;
    }
    assert_eq!(length(), 4 * 12, "the first is forgotten");
    book.note(&id, now);
    keeper.write().await;
    assert_eq!(length(), 5 * 12);
    let hours = server.say::<Vec<u8>>(&["GET", &key]);
    let hours: Vec<u32> = hours.chunks(12).map(|entry| u32::from_be_bytes(entry[..4].try_into().unwrap())).collect();
    assert!(hours.is_sorted(), "{hours:?}");
    assert!((2_592_000..2_678_500).contains(&server.say::<u64>(&["TTL", &key])));
}
