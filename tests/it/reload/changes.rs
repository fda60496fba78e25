//! What a reload changes, and what it leaves as it was.

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{admin_client, reload, reload_with, replace, site, status};
use crate::support::calls::{call, switchboard};
use crate::support::client::{get, header, http1, http2};
use crate::support::eventually;
use crate::support::gateway::Site;
use crate::support::redis::RedisServer;
use crate::support::upstream::Upstream;

#[tokio::test]
async fn routes_come_change_and_go_on_connections_that_are_open() {
    let upstream = Upstream::start().await;
    let site = site(upstream.address, "{ path: /old, upstream: up }");
    let token = site.token(&[]);
    let gateway = site.serve();
    for client in [http1(&gateway), http2(&gateway)] {
        assert_eq!(get(&client, &gateway, "/old", &token).await.status(), 200);
        assert_eq!(get(&client, &gateway, "/new", &token).await.status(), 404);
        let connections = upstream.connections();
        let changes = reload_with(&gateway, "{ path: /old,", "{ path: /new,").await;
        assert_eq!(changes, ["route /new added", "route /old removed"]);
        assert_eq!(get(&client, &gateway, "/new", &token).await.status(), 200);
        assert_eq!(get(&client, &gateway, "/old", &token).await.status(), 404);
        assert!(gateway.admin("/metrics").await.1.contains(r#"route="/new""#));
        assert!(!gateway.admin("/metrics").await.1.contains(r#"route="/old""#));
        // The connection to the service is the same one.
        assert_eq!(upstream.connections(), connections);
        reload_with(&gateway, "{ path: /new,", "{ path: /old,").await;
    }
}

#[tokio::test]
async fn plans_follow_at_once_and_what_was_counted_stays() {
    let upstream = Upstream::start().await;
    let site = site(upstream.address, "{ path: \"/{*rest}\", upstream: up }");
    let token = site.token(&[]);
    let gateway = site.serve();
    let client = http1(&gateway);
    assert_eq!(header(&get(&client, &gateway, "/a", &token).await, "x-ratelimit-remaining"), "999");
    reload_with(&gateway, "minute: 1000/1m", "minute: 6/1m").await;
    for remaining in ["4", "3", "2"] {
        assert_eq!(header(&get(&client, &gateway, "/a", &token).await, "x-ratelimit-remaining"), remaining);
    }
    assert_eq!(reload_with(&gateway, "minute: 6/1m", "minute: 5/1m").await, ["plan standard changed"]);
    let last = get(&client, &gateway, "/a", &token).await;
    assert_eq!((header(&last, "x-ratelimit-limit"), header(&last, "x-ratelimit-remaining")), ("5", "0"));
    assert_eq!(get(&client, &gateway, "/a", &token).await.status(), 429);
    reload_with(&gateway, "minute: 5/1m", "minute: 7/1m").await;
    assert_eq!(header(&get(&client, &gateway, "/a", &token).await, "x-ratelimit-remaining"), "1");
}

#[tokio::test]
async fn a_bad_configuration_changes_nothing_and_is_told_everywhere() {
    let upstream = Upstream::start().await;
    let site = site(upstream.address, "{ path: /a, upstream: up }");
    let token = site.token(&[]);
    let gateway = site.serve();
    assert_eq!(gateway.metric("callgate_config_last_reload_successful").await, Some(1.0));
    replace(&gateway, "upstream: up }", "upstream: upp }, { path: \"/:b\", upstream: up, colour: red }");
    let (code, answer) = reload(&gateway).await;
    assert_eq!((code, &answer["code"]), (422, &"invalid_configuration".into()), "{answer}");
    let messages: Vec<&str> =
        answer["errors"].as_array().unwrap().iter().map(|it| it["message"].as_str().unwrap()).collect();
    assert!(messages.iter().any(|message| message.contains("no upstream is called \"upp\"")), "{messages:?}");
    assert!(messages.iter().any(|message| message.contains("unknown key")), "{messages:?}");
    // A warning is none of the errors.
    assert!(!messages.iter().any(|message| message.contains("fixed text")), "{messages:?}");
    let warned = |found: &serde_json::Value| {
        found["warnings"].as_array().unwrap().iter().any(|it| it["path"] == "routes[1].path")
    };
    assert!(warned(&answer), "{answer}");
    let last = &status(&gateway).await["configuration"]["last_reload"];
    assert!(warned(last) && last["errors"].as_array().unwrap().len() == messages.len(), "{last}");
    // `callgate check` says the same.
    let check = std::process::Command::new(crate::support::gateway::PROGRAM).arg("check").arg(site.config()).output();
    let check = String::from_utf8(check.unwrap().stderr).unwrap();
    assert!(messages.iter().all(|message| check.contains(message)), "{check}");
    assert_eq!(get(&http2(&gateway), &gateway, "/a", &token).await.status(), 200);
    assert_eq!(get(&http2(&gateway), &gateway, "/b", &token).await.status(), 404);
    assert_eq!(gateway.metric("callgate_config_last_reload_successful").await, Some(0.0));
    assert_eq!(status(&gateway).await["configuration"]["last_reload"]["successful"], false);
    assert!(gateway.output().contains("the configuration was refused; the one before stays in force"));
    reload_with(&gateway, "upstream: upp }, { path: \"/:b\", upstream: up, colour: red }", "upstream: up }").await;
    assert_eq!(gateway.metric("callgate_config_last_reload_successful").await, Some(1.0));
    assert_eq!(status(&gateway).await["configuration"]["last_reload"]["successful"], true);
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_refused() {
    let upstream = Upstream::start().await;
    let site = site(upstream.address, "{ path: /a, upstream: up }");
    let gateway = site.serve();
    replace(&gateway, "workers: 2", "workers: 3");
    replace(&gateway, "path: /a", "path: /b");
    let (code, answer) = reload(&gateway).await;
    assert_eq!(code, 422);
    assert_eq!(answer["errors"][0]["path"], "runtime.workers");
    assert!(answer["errors"][0]["message"].as_str().unwrap().contains("needs a restart"), "{answer}");
    // Not half of it, either.
    assert!(!gateway.admin("/metrics").await.1.contains(r#"route="/b""#));
}

#[tokio::test]
async fn calls_go_on_and_are_judged_by_the_new_configuration() {
    let upstream = switchboard().await;
    let site = site(upstream, "{ path: /call, upstream: up, permission: \"calls:stream\" }");
    let token = site.token(&["calls:stream"]);
    let gateway = site.serve();
    let mut open = call(&gateway, &token, "/call").await.unwrap();
    // A route that goes takes no call with it.
    reload_with(&gateway, "{ path: /call,", "{ path: /elsewhere,").await;
    assert_eq!(gateway.metric(r#"callgate_calls_open{route="/call"}"#).await, Some(1.0));
    open.write_all(b"\x82\x80abcd").await.unwrap();
    reload_with(&gateway, "{ path: /elsewhere,", "{ path: /call,").await;
    assert_eq!(gateway.metric(r#"callgate_calls_open{route="/call"}"#).await, Some(1.0));
    reload_with(&gateway, "calls:stream", "calls:admin").await;
    // 1008 (RFC 6455 §7.4.1): the policy forbids it.
    let mut close = Vec::new();
    let _ = open.read_to_end(&mut close).await;
    assert_eq!(&close[..1], b"\x88", "{close:?}");
    assert_eq!(u16::from_be_bytes([close[2], close[3]]), 1008);
    eventually("the call to be over", async || {
        (gateway.metric(r#"callgate_calls_open{route="/call"}"#).await == Some(0.0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_hang_up_and_the_command_reload() {
    let upstream = Upstream::start().await;
    let site = site(upstream.address, "{ path: /a, upstream: up }");
    let token = site.token(&[]);
    let gateway = site.serve();
    replace(&gateway, "path: /a", "path: /b");
    gateway.signal(Signal::HUP);
    eventually("the new route", async || {
        (get(&http2(&gateway), &gateway, "/b", &token).await.status() == 200).then_some(())
    })
    .await;
    replace(&gateway, "path: /b", "path: /c");
    let run = |admin: String| {
        let arguments = ["reload", "--admin", &admin].map(str::to_owned);
        std::process::Command::new(crate::support::gateway::PROGRAM).args(arguments).output().unwrap()
    };
    let done = run(gateway.admin.to_string());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "In force: route /c added, route /b removed.\n");
    replace(&gateway, "path: /c", "paht: /c");
    let refused = run(gateway.admin.to_string());
    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("callgate.yaml:") && text.contains("routes[0].paht: "), "{text}");
}

#[tokio::test]
async fn the_log_level_changes_by_request_and_by_reload() {
    let upstream = Upstream::start().await;
    let gateway = site(upstream.address, "{ path: /a, upstream: up, auth: none }").serve();
    let set = async |level: &str| {
        let request = admin_client().put(format!("http://{}/api/log-level", gateway.admin));
        let body = format!("{{\"level\":\"{level}\"}}");
        let request = request.header("x-callgate-admin", "1").header("content-type", "application/json").body(body);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(set("error").await, 200);
    assert_eq!(set("callgate=loud").await, 422);
    let reloads = || gateway.output().matches("the configuration was read again").count();
    let before = reloads();
    // The reload sets the level of the configuration before it tells of itself.
    assert_eq!(reload(&gateway).await.0, 200);
    eventually("a line on the reload", async || (reloads() == before + 1).then_some(())).await;
}

#[tokio::test]
async fn plans_of_tokens_in_redis_follow_even_while_it_does_not_answer() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let plan = "plans: { standard: { limits: { minute: 10/1m } } }";
    let site = Site::on_redis(&redis.url(), ", on_failure: local", upstream.address, plan);
    let token = site.token(&[]);
    let gateway = site.serve();
    let client = http2(&gateway);
    let limit = async || header(&get(&client, &gateway, "/a", &token).await, "x-ratelimit-limit").to_owned();
    assert_eq!(limit().await, "10");
    assert_eq!(reload_with(&gateway, "minute: 10/1m", "minute: 20/1m").await, ["plan standard changed"]);
    assert_eq!(limit().await, "20");
    redis.pause();
    reload_with(&gateway, "minute: 20/1m", "minute: 30/1m").await;
    let answer = get(&client, &gateway, "/a", &token).await;
    // What Redis counted before is counted here, too.
    assert_eq!((header(&answer, "x-ratelimit-limit"), header(&answer, "x-ratelimit-remaining")), ("30", "27"));
}
