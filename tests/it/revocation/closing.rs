//! What operators see of open calls, and how they close one: on the instance that is asked, and on any other.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::stage::breaks_off;
use super::*;
use crate::support::client::{get, http2};
use crate::support::eventually;
use crate::support::gateway::{Gateway, PROGRAM};
use crate::support::redis::RedisServer;

/// A page of open calls.
async fn page(gateway: &Gateway, query: &str) -> Value {
    let (status, text) = gateway.admin(&format!("/api/calls?{query}")).await;
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// The calls on a page that has so many.
async fn calls(gateway: &Gateway, query: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} calls ({query})"), async || {
        let calls = page(gateway, query).await["calls"].as_array().unwrap().clone();
        (calls.len() == count).then_some(calls)
    })
    .await
}

/// Closes a call: status and answer.
async fn close(gateway: &Gateway, id: &str, query: &str) -> (u16, Value) {
    let url = format!("http://{}/api/calls/{id}{query}", gateway.admin);
    let response = reqwest::Client::new().delete(url).header("x-callgate-admin", "1").send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn command(gateway: &Gateway, arguments: &[&str]) -> (String, String, bool) {
    let admin = gateway.admin.to_string();
    let mut command = std::process::Command::new(PROGRAM);
    let output = command.arg("calls").args(arguments).args(["--admin", &admin]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_a_call_and_closes_it_with_a_reason() {
    let stage = Stage::start().await;
    let site = stage.in_memory("", "");
    let (token, other) = (site.token(&["calls:stream"]), site.token(&["calls:stream"]));
    let gateway = site.serve();
    let call = Caller::open(&gateway, "/call", &token).await;
    let stays = Caller::open(&gateway, "/free", &other).await;
    let call = tokio::spawn(call.close_reason());
    let shown = eventually("a call that carries something", async || {
        let shown = calls(&gateway, &format!("token={}", token.id), 1).await.remove(0);
        (shown["messages_out"].as_u64() > Some(3)).then_some(shown)
    })
    .await;
    for (key, wanted) in [
        ("kind", "websocket"),
        ("token", &*token.id),
        ("token_name", "test"),
        ("account", "acme"),
        ("client", "127.0.0.1"),
        ("route", "/call"),
        ("upstream", "calls"),
        ("endpoint", &*format!("http://{}", stage.calls.address())),
    ] {
        assert_eq!(shown[key], wanted, "{key}");
    }
    assert!(shown["bytes_out"].as_u64() > Some(300_000) && shown["seconds"].as_f64().unwrap() < 60.0, "{shown}");
    let id = shown["id"].as_str().unwrap();
    let opened: Vec<Value> = gateway.log().into_iter().filter(|line| line["message"] == "call opened").collect();
    let line = opened.iter().find(|line| line["call_id"] == id).expect("a line of the opened call");
    assert_eq!((&line["request_id"], &line["token_id"]), (&shown["request_id"], &shown["token"]));
    assert_eq!(
        (&line["kind"], &line["account"], &line["path"]),
        (&"websocket".into(), &"acme".into(), &"/call".into())
    );
    assert_eq!(opened.len(), 2);
    // Filters and pages.
    assert_eq!(calls(&gateway, "", 2).await[0]["id"], id, "the oldest first");
    for (query, count) in [("route=/free", 1), ("upstream=up", 0), ("account=acme", 2), ("all=true&upstream=calls", 2)]
    {
        calls(&gateway, query, count).await;
    }
    let first = page(&gateway, "limit=1").await;
    assert_eq!(first["next"], id);
    let second = page(&gateway, &format!("limit=1&after={id}")).await;
    assert_eq!((&second["calls"][0]["route"], &second["next"]), (&"/free".into(), &Value::Null));

    let (status, answer) = close(&gateway, id, "?reason=maintenance%20at%20noon").await;
    assert_eq!((status, &answer["ended"]), (200, &true.into()), "{answer}");
    assert_eq!(call.await.unwrap(), Some((1008, "maintenance at noon".to_owned())));
    assert_eq!(stage.calls.close_reasons(1).await, [Some((1008, "maintenance at noon".to_owned()))]);
    calls(&gateway, "", 1).await;
    let line = &gateway.access("/call", 1).await[0];
    assert_eq!(
        (&line["ended_by"], &line["error"]),
        (&"gateway".into(), &"an operator closed it: maintenance at noon".into())
    );
    let (_, audit) = gateway.admin("/api/audit?action=end_call").await;
    let audit: Value = serde_json::from_str(&audit).unwrap();
    assert_eq!((&audit["entries"][0]["tokens"][0], &audit["entries"][0]["account"]), (&shown["token"], &"acme".into()));
    assert_eq!(audit["entries"][0]["changes"]["reason"][1], "maintenance at noon");
    assert_eq!(close(&gateway, id, "").await.0, 404);
    assert_eq!(close(&gateway, "nobody", "").await.0, 404);
    assert_eq!(close(&gateway, id, "?reason=").await.0, 422);
    drop(stays);
    calls(&gateway, "", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_events_are_calls_and_the_command_line_closes_them() {
    let stage = Stage::start().await;
    let site = stage.in_memory("", "");
    let token = site.token(&["calls:stream"]);
    let gateway = site.serve();
    let mut answer = get(&http2(&gateway), &gateway, "/feed", &token).await;
    answer.chunk().await.unwrap().unwrap();
    let shown = calls(&gateway, "", 1).await.remove(0);
    assert_eq!(
        (&shown["kind"], &shown["messages_out"], &shown["upstream"]),
        (&"events".into(), &Value::Null, &"up".into())
    );
    let (table, _, _) = command(&gateway, &["list"]);
    let id = shown["id"].as_str().unwrap();
    assert!(table.starts_with("CALL ") && table.contains(id) && table.contains("events"), "{table}");
    let (json, _, _) = command(&gateway, &["list", "--json", "--all"]);
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["id"], id);
    let (_, said, ok) = command(&gateway, &["end", id]);
    assert!(!ok && said.contains("--yes"), "{said}");
    let (said, _, ok) = command(&gateway, &["end", id, "--yes"]);
    assert!(ok && said.contains("is closed"), "{said}");
    assert!(breaks_off(answer).await, "an answer that is not whole must not look so");
    assert_eq!(gateway.access("/feed", 1).await[0]["error"], "an operator closed it: closed by the operator");
    let (said, _, _) = command(&gateway, &["list"]);
    assert_eq!(said, "no open calls\n");
    let (_, said, ok) = command(&gateway, &["end", id, "--yes"]);
    assert!(!ok && said.contains("No call that is open has this id"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_instance_shows_and_closes_the_calls_of_all() {
    let (mut redis, stage) = (RedisServer::start(), Stage::start().await);
    let site = stage.site(&format!("store: {{ redis: {{ url: \"{}\", deadline: 5s }} }}", redis.url()), "", "");
    let token = site.token(&["calls:stream"]);
    let (first, mut second) = (site.serve(), site.serve());
    let here = Caller::open(&first, "/call", &token).await;
    let there = Caller::open(&second, "/free", &token).await;
    let there = tokio::spawn(there.close_reason());
    calls(&first, "", 1).await;
    let both = calls(&first, "all=true", 2).await;
    assert_ne!(both[0]["instance"], both[1]["instance"]);
    assert_eq!((&both[0]["route"], &both[1]["route"]), (&"/call".into(), &"/free".into()));
    assert_eq!(calls(&second, "all=true&limit=1", 1).await[0]["route"], "/call");
    assert_eq!(calls(&first, "all=true&route=/free", 1).await[0]["id"], both[1]["id"]);

    let asked = Instant::now();
    let (status, answer) = close(&first, both[1]["id"].as_str().unwrap(), "?reason=enough").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(there.await.unwrap(), Some((1008, "enough".to_owned())));
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    let (_, audit) = first.admin("/api/audit?action=end_call").await;
    assert_eq!(serde_json::from_str::<Value>(&audit).unwrap()["entries"][0]["tokens"][0], token.id);
    assert_eq!(close(&first, both[1]["id"].as_str().unwrap(), "").await.0, 404, "all have answered");

    // An instance that died takes its calls along, and is missed for a while.
    let lost = Caller::open(&second, "/free", &token).await;
    let two = calls(&first, "all=true", 2).await;
    second.signal(Signal::KILL);
    second.wait().await;
    let left = page(&first, "all=true").await;
    assert_eq!(left["calls"].as_array().unwrap().len(), 1);
    assert_eq!(left["silent_instances"][0], two[1]["instance"]);
    let (status, answer) = close(&first, two[1]["id"].as_str().unwrap(), "").await;
    assert_eq!((status, &answer["code"]), (503, &"unavailable".into()), "{answer}");

    // Its own calls are shown while Redis is away, too.
    redis.kill();
    let own = page(&first, "all=true").await;
    assert_eq!(own["calls"][0]["route"], "/call", "{own}");
    drop((here, lost));
}
