//! Failed authentications: the answers to guessers and to good clients beside them, and the load on Redis.

use std::time::Instant;

use callgate::tokens::NewToken;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::client::{get, header, http1, http2, raw};
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::redis::RedisServer;
use crate::support::upstream::Upstream;
use crate::support::{WAIT_TIMEOUT, eventually};

/// Tokens of the scan; more by `CALLGATE_SCAN=1000000`.
const SCAN: usize = 30_000;

/// A token in the right form, with the right checksum, that nobody has made.
fn guess() -> Token {
    let token = NewToken::generate("kal_live").unwrap();
    Token { id: token.id.clone(), secret: token.secret.expose().to_owned() }
}

fn site(redis: &RedisServer, upstream: &Upstream, failures: &str) -> std::sync::Arc<Site> {
    let rest = format!(
        "tokens: {{ failures: {{ {failures} }} }}\ntrusted_proxies: [127.0.0.1]\nplans: {{ standard: {{ limits: {{ minute: 100000/1m }} }} }}"
    );
    Site::on_redis(&redis.url(), ", deadline: 10s", upstream.address, &rest)
}

/// A GET from an address, as a proxy tells it.
async fn get_from(gateway: &Gateway, address: &str, token: &str) -> reqwest::Response {
    let request = http2(gateway).get(gateway.url("/echo")).bearer_auth(token).header("x-forwarded-for", address);
    request.send().await.unwrap()
}

async fn code(response: reqwest::Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (status, body["code"].as_str().unwrap().to_owned())
}

/// Many requests down one connection, each with a token of its own; the statuses of the answers.
async fn volley(gateway: &Gateway, requests: impl Iterator<Item = (String, String)>) -> Vec<u16> {
    let (mut reader, mut writer) = tokio::io::split(raw(gateway, "http/1.1").await);
    let requests: Vec<String> = requests
        .map(|(address, token)| {
            format!(
                "HEAD /echo HTTP/1.1\r\nhost: a\r\nx-forwarded-for: {address}\r\nauthorization: Bearer {token}\r\n\r\n"
            )
        })
        .collect();
    let count = requests.len();
    let writing = tokio::spawn(async move {
        for batch in requests.chunks(50) {
            writer.write_all(batch.concat().as_bytes()).await.unwrap();
        }
        writer
    });
    let (mut statuses, mut text, mut buffer) = (Vec::new(), Vec::new(), vec![0; 65_536]);
    while statuses.len() < count {
        let read = reader.read(&mut buffer).await.unwrap();
        assert!(read > 0, "the gateway closed after {} of {count}", statuses.len());
        text.extend_from_slice(&buffer[..read]);
        while let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") {
            let head: Vec<u8> = text.drain(..end + 4).collect();
            statuses.push(std::str::from_utf8(&head[9..12]).unwrap().parse().unwrap());
        }
    }
    drop(writing.await.unwrap());
    statuses
}

#[tokio::test]
async fn an_address_with_too_many_failures_gets_429_and_others_do_not() {
    let (redis, upstream) = (RedisServer::start(), Upstream::start().await);
    let site = site(&redis, &upstream, "limit: 5/10m");
    let good = site.token(&[]);
    let gateway = site.serve();
    assert_eq!(get_from(&gateway, "192.0.2.1", &good.secret).await.status(), 200);
    for _ in 0..5 {
        assert_eq!(code(get_from(&gateway, "192.0.2.1", &guess().secret).await).await, (401, "invalid_token".into()));
    }
    let before = redis.calls("hmget");
    let refused = get_from(&gateway, "192.0.2.1", &guess().secret).await;
    let wait: u64 = header(&refused, "retry-after").parse().unwrap();
    assert!((1..=120).contains(&wait), "{wait}");
    assert_eq!((header(&refused, "x-ratelimit-limit"), header(&refused, "www-authenticate")), ("", ""));
    assert_eq!(code(refused).await, (429, "too_many_failures".into()));
    // Broken ones count and are refused alike; neither reaches the store.
    let mut broken = guess().secret;
    broken.pop();
    assert_eq!(code(get_from(&gateway, "192.0.2.1", &broken).await).await.0, 429);
    assert_eq!(redis.calls("hmget"), before);
    // Requests without a token or with a known one are served as before, and so are those from other addresses.
    let bare = http2(&gateway).get(gateway.url("/echo")).header("x-forwarded-for", "192.0.2.1").send().await.unwrap();
    assert_eq!(bare.status(), 401);
    assert_eq!(get_from(&gateway, "192.0.2.1", &good.secret).await.status(), 200);
    assert_eq!(get_from(&gateway, "192.0.2.2", &guess().secret).await.status(), 401);
    // Success resets nothing.
    assert_eq!(get_from(&gateway, "192.0.2.1", &guess().secret).await.status(), 429);
    let counted = gateway.metric("callgate_auth_total{outcome=\"too_many_failures\"}").await;
    assert_eq!(counted, Some(3.0));
}

#[tokio::test]
async fn a_new_token_works_from_a_limited_address_on_retry() {
    let (redis, upstream) = (RedisServer::start(), Upstream::start().await);
    let site = site(&redis, &upstream, "limit: 3/10m");
    let gateway = site.serve();
    for _ in 0..4 {
        get_from(&gateway, "192.0.2.1", &guess().secret).await;
    }
    let good = site.token(&[]);
    assert_eq!(get_from(&gateway, "192.0.2.1", &good.secret).await.status(), 429);
    eventually("its second chance", async || {
        (get_from(&gateway, "192.0.2.1", &good.secret).await.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn networks_have_the_configured_width_and_only_proxies_forward_addresses() {
    let (redis, upstream) = (RedisServer::start(), Upstream::start().await);
    let site = site(&redis, &upstream, "limit: 3/10m, ipv4_prefix: 24");
    let gateway = site.serve();
    for host in 1..=3 {
        assert_eq!(get_from(&gateway, &format!("192.0.2.{host}"), &guess().secret).await.status(), 401);
        assert_eq!(get_from(&gateway, &format!("2001:db8:1:2::{host}"), &guess().secret).await.status(), 401);
    }
    assert_eq!(get_from(&gateway, "192.0.2.4", &guess().secret).await.status(), 429);
    assert_eq!(get_from(&gateway, "192.0.3.4", &guess().secret).await.status(), 401);
    assert_eq!(get_from(&gateway, "2001:db8:1:2:ffff::4", &guess().secret).await.status(), 429);
    assert_eq!(get_from(&gateway, "2001:db8:1:3::4", &guess().secret).await.status(), 401);

    // Without trusted proxies everybody here is 127.0.0.1, whatever they claim.
    let site = Site::in_memory(upstream.address, "  - { path: \"/{*rest}\", upstream: up }");
    let gateway = site.serve();
    let (mut failed, started) = (0, Instant::now());
    let refusal = loop {
        let answer = get_from(&gateway, &format!("192.0.2.{}", failed % 250), &guess().secret).await;
        if answer.status() != 401 {
            break code(answer).await;
        }
        failed += 1;
        // Sixty may fail at one time, and one more each second.
        let most = 60 + started.elapsed().as_secs();
        assert!(failed <= most, "{failed} failed in {:?}", started.elapsed());
    };
    assert!(failed >= 60, "{refusal:?} after {failed}");
    assert_eq!(refusal, (429, "too_many_failures".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_scan_costs_a_bounded_rate_of_look_ups_and_no_memory() {
    let total = std::env::var("CALLGATE_SCAN").map_or(SCAN, |count| count.parse().unwrap());
    let (redis, upstream) = (RedisServer::start(), Upstream::start().await);
    let site = site(&redis, &upstream, "lookups: 10");
    let known: Vec<Token> = (0..3).map(|_| site.token(&[])).collect();
    let gateway = site.serve();
    let client = http1(&gateway);
    for token in &known {
        assert_eq!(get(&client, &gateway, "/echo", token).await.status(), 200);
    }
    // The first of them fill what is bounded: the table of networks, and that of tokens that may come again.
    let warm = total / 2;
    let mut number = 0_u32;
    let mut scan = async |count: usize| {
        let mut statuses = Vec::new();
        for _ in 0..count.div_ceil(1_000) {
            let requests = (0..1_000).map(|_| {
                number += 1;
                let [_, b, c, d] = number.to_be_bytes();
                (format!("10.{b}.{c}.{d}"), guess().secret)
            });
            statuses.extend(volley(&gateway, requests.collect::<Vec<_>>().into_iter()).await);
            // A known token is served in the middle of the scan.
            assert_eq!(get(&client, &gateway, "/echo", &known[statuses.len() % 3]).await.status(), 200);
        }
        statuses
    };
    scan(warm).await;
    let (memory, before, started) = (gateway.resident(), redis.calls("hmget"), Instant::now());
    let statuses = scan(warm).await;
    let (took, looked_up) = (started.elapsed(), redis.calls("hmget") - before);
    let count = |status: u16| statuses.iter().filter(|found| **found == status).count();
    assert_eq!(count(401) + count(503), statuses.len(), "{:?}", &statuses[..10]);
    assert!(count(503) > 0, "none was refused: {took:?}");
    // A burst, the rate, and as much again as may be under way at one time.
    let most = 10 + 10 * (took.as_secs() + 1) + 100;
    println!("{} guesses in {took:?}: {looked_up} look-ups, {} MiB", statuses.len(), gateway.resident() >> 20);
    assert!(looked_up <= most, "{looked_up} look-ups in {took:?}");
    let grown = gateway.resident().saturating_sub(memory);
    assert!(grown < 8 << 20, "{} KiB more than before", grown >> 10);
    // A token made a moment ago works at once where nobody guesses, and here when it comes again.
    let fresh = site.token(&[]);
    eventually("a new token to work", async || {
        (get(&client, &gateway, "/echo", &fresh).await.status() == 200).then_some(())
    })
    .await;
    tokio::time::timeout(WAIT_TIMEOUT, gateway.admin("/metrics")).await.expect("a page in time");
}
