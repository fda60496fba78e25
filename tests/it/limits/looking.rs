//! `callgate limits peek` and `reset`, and the same over the admin listener.

use std::process::{Command, Output};
use std::time::Instant;

use reqwest::Method;
use serde_json::Value;

use super::stores::say;
use crate::support::client::{get, header, http1};
use crate::support::eventually;
use crate::support::gateway::{Gateway, PROGRAM, Site, Token};
use crate::support::redis::RedisServer;
use crate::support::upstream::Upstream;

const PLANS: &str = "plans: { standard: { limits: { minute: 3/1m, hour: 100/1h } } }";

struct Stage {
    redis: Option<RedisServer>,
    gateway: Gateway,
    token: Token,
    _upstream: Upstream,
}

impl Stage {
    async fn new(redis: Option<RedisServer>) -> Self {
        let upstream = Upstream::start().await;
        let store = match &redis {
            Some(server) => format!("store: {{ redis: {{ url: \"{}\", deadline: 10s }} }}", server.url()),
            None => "store: memory\ntokens: { file: tokens.yaml }".to_owned(),
        };
        let site = Site::new(&format!(
            "{store}\n{PLANS}\nroutes: [{{ path: \"/{{*rest}}\", upstream: up }}]\n\
             upstreams: {{ up: {{ endpoints: [\"http://{}\"] }} }}",
            upstream.address
        ));
        let token = site.token(&[]);
        let gateway = site.serve();
        Self { redis, gateway, token, _upstream: upstream }
    }

    /// `callgate limits …` with these arguments.
    fn limits(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        command.arg("limits").args(arguments).output().unwrap()
    }

    fn peek(&self, from: [&str; 2]) -> Value {
        let output = self.limits(&["peek", from[0], from[1], &self.token.id, "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    async fn api(&self, method: Method, id: &str, headers: &[(&str, &str)]) -> (u16, Value) {
        let url = format!("http://{}/api/limits/{id}", self.gateway.admin);
        let mut request = reqwest::Client::builder().no_proxy().build().unwrap().request(method, url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap_or_default())
    }

    /// A flood, a look, a reset, and the token is as new.
    async fn is_looked_at_and_cleared(&self, from: [&str; 2]) {
        let client = http1(&self.gateway);
        let first = get(&client, &self.gateway, "/echo", &self.token).await;
        assert_eq!(header(&first, "x-ratelimit-remaining"), "2");
        let seen = self.peek(from);
        assert_eq!((&seen["id"], &seen["plan"]), (&self.token.id.as_str().into(), &"standard".into()));
        assert_eq!(seen["windows"][0]["name"], "minute");
        assert_eq!(seen["windows"][0]["used"], 1);
        assert_eq!(seen["windows"][0]["next_slot_in_seconds"], 0);
        assert_eq!(seen["windows"][1]["limit"], 100);
        assert_eq!(seen["windows"][1]["window_seconds"], 3_600);
        let statuses =
            futures_util::future::join_all((0..5).map(|_| get(&client, &self.gateway, "/echo", &self.token)));
        let denied = statuses.await.into_iter().find(|response| response.status() == 429).unwrap();
        let seen = self.peek(from);
        assert_eq!((&seen["windows"][0]["used"], &seen["windows"][1]["used"]), (&3.into(), &3.into()));
        assert_eq!(seen["windows"][0]["next_slot_at"].to_string(), header(&denied, "x-ratelimit-reset"));
        let wait = seen["windows"][0]["next_slot_in_seconds"].as_u64().unwrap();
        assert!((50..=60).contains(&wait), "{seen}");
        let again = self.peek(from);
        for window in [0, 1] {
            assert_eq!(seen["windows"][window]["used"], again["windows"][window]["used"], "a look counts nothing");
        }
        let human = self.limits(&["peek", from[0], from[1], &self.token.id]);
        let human = String::from_utf8(human.stdout).unwrap();
        assert!(human.contains("minute  3 of 3    in ") && human.contains("hour    3 of 100  now\n"), "{human}");

        let unconfirmed = self.limits(&["reset", from[0], from[1], &self.token.id]);
        assert_eq!(unconfirmed.status.code(), Some(2), "there is nobody to ask");
        assert!(String::from_utf8_lossy(&unconfirmed.stderr).contains("add --yes"));
        assert_eq!(self.peek(from)["windows"][1]["used"], 3);
        let output = self.limits(&["reset", "--yes", from[0], from[1], &self.token.id]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("up to a second"));
        assert_eq!(self.peek(from)["windows"][1]["used"], 0);
        let audit = self.gateway.site.run(&["token", "audit", "--action", "reset", "--json"]);
        let audit: Value = serde_json::from_slice(&audit.stdout).unwrap();
        assert_eq!(audit["entries"][0]["tokens"][0], self.token.id, "{audit}");
        let again = eventually("the remembered refusal to end", async || {
            let response = get(&client, &self.gateway, "/echo", &self.token).await;
            (response.status() == 200).then_some(response)
        });
        assert_eq!(header(&again.await, "x-ratelimit-remaining"), "2");
    }
}

#[tokio::test]
async fn limits_in_redis_are_shown_and_reset_by_command() {
    let stage = Stage::new(Some(RedisServer::start())).await;
    let config = stage.gateway.site.config();
    stage.is_looked_at_and_cleared(["--config", config.to_str().unwrap()]).await;
}

#[tokio::test]
async fn limits_are_shown_and_reset_through_a_running_instance_of_either_store() {
    for redis in [None, Some(RedisServer::start())] {
        let stage = Stage::new(redis).await;
        let admin = stage.gateway.admin.to_string();
        stage.is_looked_at_and_cleared(["--admin", &admin]).await;
    }
}

#[tokio::test]
async fn a_reset_clears_the_cached_denials_of_its_instance() {
    let stage = Stage::new(Some(RedisServer::start())).await;
    let client = http1(&stage.gateway);
    for status in [200, 200, 200, 429] {
        assert_eq!(get(&client, &stage.gateway, "/echo", &stage.token).await.status(), status);
    }
    assert_eq!(stage.api(Method::DELETE, &stage.token.id, &[("x-callgate-admin", "1")]).await.0, 200);
    assert_eq!(get(&client, &stage.gateway, "/echo", &stage.token).await.status(), 200);
}

/// How often Redis was asked by a flood on a used-up token: otherwise at most once a second, the refusal being remembered.
async fn refusals_of_redis(gateway: &Gateway) -> f64 {
    gateway.metric("callgate_decisions_total{outcome=\"denied\",source=\"redis\"}").await.unwrap()
}

#[tokio::test]
async fn an_announced_change_clears_cached_denials() {
    let stage = Stage::new(Some(RedisServer::start())).await;
    let redis = super::stores::connect(stage.redis.as_ref().unwrap(), callgate::config::OnFailure::Deny).await;
    let client = http1(&stage.gateway);
    let status = async || get(&client, &stage.gateway, "/echo", &stage.token).await.status().as_u16();
    for expected in [200, 200, 200, 429] {
        assert_eq!(status().await, expected);
    }
    let began = Instant::now();
    eventually("Redis to be asked far more often than once a second", async || {
        say(&redis, &format!("PUBLISH callgate:changed {}", stage.token.id)).await;
        assert_eq!(status().await, 429);
        let expected = began.elapsed().as_secs_f64() + 6.0;
        (refusals_of_redis(&stage.gateway).await > expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reset_by_command_clears_the_memory_of_instances_too() {
    let mut stage = Stage::new(Some(RedisServer::start())).await;
    let client = http1(&stage.gateway);
    for status in [200, 200, 200, 429] {
        assert_eq!(get(&client, &stage.gateway, "/echo", &stage.token).await.status(), status);
    }
    let config = stage.gateway.site.config();
    assert!(stage.limits(&["reset", "--yes", "--config", config.to_str().unwrap(), &stage.token.id]).status.success());
    let first = eventually("the remembered refusal to end", async || {
        let response = get(&client, &stage.gateway, "/echo", &stage.token).await;
        (response.status() == 200).then_some(response)
    });
    assert_eq!(header(&first.await, "x-ratelimit-remaining"), "2");
    // From here on the instance decides alone.
    stage.redis.as_mut().unwrap().kill();
    let alone = get(&client, &stage.gateway, "/echo", &stage.token).await;
    assert_eq!((alone.status().as_u16(), header(&alone, "x-ratelimit-remaining")), (200, "1"));
}

#[tokio::test]
async fn errors_of_the_limits_commands_name_their_cause() {
    let stage = Stage::new(None).await;
    let config = stage.gateway.site.config();
    let config = config.to_str().unwrap();
    let reported = |arguments: &[&str], code| {
        let output = stage.limits(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let text = reported(&["peek", "--config", config, &stage.token.id], 1);
    // With the memory store the running instance is asked, and the configuration does not know its port.
    assert!(text.contains("no admin listener at 127.0.0.1:0"), "{text}");
    let admin = stage.gateway.admin.to_string();
    let mut near = stage.token.id.clone();
    near.replace_range(..1, "_");
    let text = reported(&["peek", "--admin", &admin, &near], 1);
    assert!(text.contains(&format!("did you mean \"{}\"?", stage.token.id)), "{text}");
    assert!(
        reported(&["reset", "--yes", "--admin", &admin, "x HTTP/1.1\r\nfoo: bar"], 1)
            .contains("no token has such an id")
    );
    // Nobody names a configuration, and there is none here.
    assert!(reported(&["peek", &stage.token.id], 1).contains("no configuration"));
}

#[tokio::test]
async fn the_limits_api_refuses_foreign_origins_and_unconfirmed_changes() {
    let stage = Stage::new(Some(RedisServer::start())).await;
    let id = stage.token.id.clone();
    let client = http1(&stage.gateway);
    get(&client, &stage.gateway, "/echo", &stage.token).await;
    let confirmed = ("x-callgate-admin", "1");
    assert_eq!(stage.api(Method::GET, &id, &[]).await.0, 200);
    for (method, headers) in [
        (Method::GET, &[("host", "evil.example")][..]),
        (Method::GET, &[("sec-fetch-site", "cross-site")]),
        (Method::DELETE, &[]),
        (Method::DELETE, &[confirmed, ("origin", "https://evil.example")]),
        (Method::DELETE, &[confirmed, ("host", "evil.example")]),
    ] {
        let (status, body) = stage.api(method.clone(), &id, headers).await;
        assert_eq!((status, &body["code"]), (403, &"forbidden".into()), "{method} {headers:?}");
    }
    assert_eq!(stage.api(Method::OPTIONS, &id, &[]).await.0, 405);
    assert_eq!(stage.api(Method::POST, &id, &[confirmed]).await.0, 405);
    assert_eq!(stage.api(Method::GET, "nobody", &[]).await.1["code"], "not_found");
    let (_, seen) = stage.api(Method::GET, &id, &[]).await;
    assert_eq!(seen["windows"][0]["used"], 1);
    let server = stage.redis.as_ref().unwrap();
    let redis = super::stores::connect(server, callgate::config::OnFailure::Deny).await;
    say(&redis, &format!("HSET callgate:{{{id}}}:token version 1")).await;
    assert_eq!(stage.api(Method::GET, &id, &[]).await.1["windows"][0]["used"], 1, "read again with its new version");
}
