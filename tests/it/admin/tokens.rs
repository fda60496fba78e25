//! Tokens over the API, from their making to their end, with both stores.

use std::sync::Arc;

use futures_util::future::join_all;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::{FILE, private_site, request, send};
use crate::support::client::http1;
use crate::support::gateway::{Gateway, Site};
use crate::support::redis::RedisServer;

/// A gateway with either store, its admin listener on loopback without tokens.
struct Stage {
    gateway: Gateway,
    redis: Option<RedisServer>,
}

fn stages() -> [Stage; 2] {
    let redis = RedisServer::start();
    let on_redis = site_on(&redis).serve();
    [Stage { gateway: private_site(FILE, "").serve(), redis: None }, Stage { gateway: on_redis, redis: Some(redis) }]
}

fn site_on(redis: &RedisServer) -> Arc<Site> {
    private_site(&format!("store: {{ redis: {{ url: \"{}\", deadline: 5s }} }}", redis.url()), "")
}

impl Stage {
    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        request(&self.gateway, method, path).header("x-callgate-admin", "1")
    }

    async fn get(&self, path: &str) -> Value {
        let (status, _, body) = send(self.ask(Method::GET, path)).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, _, body) = send(self.ask(Method::POST, path).json(body)).await;
        (status, body)
    }

    async fn create(&self, body: Value) -> Value {
        let (status, made) = self.post("/api/tokens", &body).await;
        assert_eq!(status, 201, "{made}");
        made
    }

    fn patch(&self, id: &str, version: &Value, body: &Value) -> RequestBuilder {
        self.ask(Method::PATCH, &format!("/api/tokens/{id}")).header("if-match", format!("\"{version}\"")).json(body)
    }

    /// The status that the gateway returns for a secret. Nothing listens behind it, so 502 is a token that works.
    async fn status(&self, secret: &Value) -> u16 {
        let request = http1(&self.gateway).get(self.gateway.url("/x")).bearer_auth(secret.as_str().unwrap());
        request.send().await.unwrap().status().as_u16()
    }
}

fn id(token: &Value) -> &str {
    token["id"].as_str().unwrap()
}

#[tokio::test]
async fn a_token_is_created_changed_and_revoked_over_the_api() {
    for stage in stages() {
        let asked = json!({ "name": "Dialler", "account": "acme", "permissions": ["calls:red"], "limits": { "minute": "600/1m" },
            "concurrent_calls": 3, "in_flight": 4, "expires_at": "2999-01-01T00:00:00Z" });
        let response = stage.ask(Method::POST, "/api/tokens").json(&asked).send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["cache-control"]),
            (201, &"no-store".parse().unwrap())
        );
        let (location, etag) = (response.headers()["location"].clone(), response.headers()["etag"].clone());
        let made: Value = response.json().await.unwrap();
        assert_eq!(location, format!("/api/tokens/{}", id(&made)));
        assert_eq!(etag, format!("\"{}\"", made["version"]));
        assert_eq!(made["warnings"], json!(["no route asks for \"calls:red\" (did you mean \"calls:read\"?)"]));
        assert_eq!(stage.status(&made["token"]).await, 502, "a token made a moment ago works");

        let path = location.to_str().unwrap();
        let shown = stage.get(path).await;
        for (field, value) in asked.as_object().unwrap() {
            assert_eq!(&shown[field], value, "{field}");
        }
        assert!(
            shown.get("token").is_none() && shown["usage"]["requests"].is_u64() && shown["state"] == "active",
            "{shown}"
        );
        let changes = json!({ "name": "Dialler 2", "limits": null, "concurrent_calls": null, "in_flight": null, "expires_at": null, "permissions": [] });
        let (status, headers, changed) = send(stage.patch(id(&made), &made["version"], &changes)).await;
        assert_eq!((status, &changed["name"], &changed["limits"]), (200, &"Dialler 2".into(), &json!({})), "{changed}");
        assert_eq!(headers["etag"], format!("\"{}\"", changed["version"]));
        assert_ne!(changed["version"], made["version"]);
        assert_eq!((&changed["expires_at"], &changed["account"]), (&Value::Null, &"acme".into()));

        let effective = &stage.get(path).await["effective"];
        assert_eq!(
            effective,
            &json!({ "plan": "standard", "limits": { "minute": "60/1m", "hour": "1000/1h" }, "concurrent_calls": null, "in_flight": null })
        );

        let (_, rotated) = stage.post(&format!("{path}/rotate"), &json!({ "grace_seconds": 3600 })).await;
        assert!(rotated["old_secret_until"].is_string() && rotated["token"] != made["token"], "{rotated}");
        assert_eq!((stage.status(&made["token"]).await, stage.status(&rotated["token"]).await), (502, 502));
        assert_eq!(rotated["old_secrets_until"], json!([rotated["old_secret_until"]]));
        let (_, last) = stage.post(&format!("{path}/rotate"), &json!({ "grace_seconds": 0 })).await;
        assert_eq!((stage.status(&rotated["token"]).await, stage.status(&last["token"]).await), (401, 502));
        for (action, state, status) in
            [("disable", "disabled", 401), ("enable", "active", 502), ("revoke", "revoked", 401)]
        {
            let (code, _, after) = send(stage.ask(Method::POST, &format!("{path}/{action}"))).await;
            assert_eq!((code, &after["state"]), (200, &state.into()), "{after}");
            assert_eq!(stage.status(&last["token"]).await, status, "{action}");
        }
        for (action, status) in [("revoke", 200), ("enable", 409), ("rotate", 409)] {
            assert_eq!(send(stage.ask(Method::POST, &format!("{path}/{action}"))).await.0, status, "{action}");
        }
        let actions: Vec<_> = stage.get("/api/audit").await["entries"].as_array().unwrap().clone();
        let expected = ["revoke", "enable", "disable", "rotate", "rotate", "update", "create"];
        assert_eq!(actions.iter().map(|entry| entry["action"].as_str().unwrap()).collect::<Vec<_>>(), expected);
        assert!(actions.iter().all(|entry| entry["by"] == "admin" && entry["tokens"] == json!([id(&made)])));
        let log = stage.gateway.output();
        for secret in [&made["token"], &rotated["token"], &last["token"]] {
            assert!(!log.contains(&secret.as_str().unwrap()[21..]));
        }
    }
}

#[tokio::test]
async fn the_second_change_of_the_same_version_gets_412() {
    for stage in stages() {
        let made = stage.create(json!({ "name": "a", "account": "acme" })).await;
        let changes = (0..8)
            .map(|number| send(stage.patch(id(&made), &made["version"], &json!({ "name": format!("n{number}") }))));
        let answers = join_all(changes).await;
        let (good, late): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(status, ..)| *status == 200);
        assert_eq!((good.len(), late.len()), (1, 7));
        for (status, headers, body) in &late {
            assert_eq!((*status, &body["code"]), (412, &"version_mismatch".into()), "{body}");
            assert_eq!(headers["etag"], good[0].1["etag"], "the version to look at");
        }
        assert_eq!(stage.get(&format!("/api/tokens/{}", id(&made))).await["name"], good[0].2["name"]);

        let path = format!("/api/tokens/{}", id(&made));
        let with = |tag: &str| stage.ask(Method::PATCH, &path).header("if-match", tag).json(&json!({ "name": "b" }));
        let current = good[0].1["etag"].to_str().unwrap();
        for (tag, status) in
            [("W/\"1\"", 412), ("\"1\"", 412), ("17", 400), ("*", 200), (&format!("\"1\", {current}"), 412)]
        {
            assert_eq!(send(with(tag)).await.0, status, "{tag}");
        }
        let bare = send(stage.ask(Method::PATCH, &path).json(&json!({ "name": "b" }))).await;
        assert_eq!((bare.0, &bare.2["code"]), (428, &"precondition_required".into()));
        let stale = stage.ask(Method::POST, &format!("{path}/revoke")).header("if-match", "\"1\"");
        assert_eq!(send(stale).await.0, 412);
        assert_eq!(stage.get(&path).await["state"], "active");
    }
}

#[tokio::test]
async fn a_repeated_request_makes_one_token() {
    for stage in stages() {
        let ask = |key: &str, name: &str| {
            let request = stage.ask(Method::POST, "/api/tokens").header("idempotency-key", key);
            send(request.json(&json!({ "name": name, "account": "acme" })))
        };
        let answers = join_all((0..6).map(|_| ask("key-1", "a"))).await;
        let made: Vec<_> = answers.iter().filter(|(status, ..)| *status == 201).collect();
        assert_eq!(made.len(), 1, "{answers:?}");
        for (status, _, body) in &answers {
            assert_eq!(body["id"], made[0].2["id"]);
            assert_eq!(*status == 200, body["token"].is_null(), "only the first answer has the text");
        }
        let (status, _, body) = ask("key-1", "other content").await;
        assert_eq!((status, &body["code"]), (422, &"idempotency_key_reused".into()));
        assert_eq!(ask("key-2", "a").await.0, 201);
        assert_eq!(ask(&"k".repeat(256), "a").await.0, 400);
        assert_eq!(stage.get("/api/tokens").await["tokens"].as_array().unwrap().len(), 2);
    }
}

#[tokio::test]
async fn a_foreign_token_is_registered_by_its_hash() {
    for stage in stages() {
        let secret = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN";
        let hash = "08b14f5392d7acf18d7613f91b41ba279d5a3e0758877059b5da1da18b939817";
        let asked = json!({ "name": "old", "account": "acme", "sha256": hash });
        let made = stage.create(asked.clone()).await;
        assert!(made["token"].is_null(), "{made}");
        assert_eq!(stage.status(&format!("17|{secret}").into()).await, 502);
        let (status, again) = stage.post("/api/tokens", &asked).await;
        assert_eq!((status, &again["code"]), (409, &"exists".into()));
        for (bad, field) in [(json!("17|abc"), "sha256"), (json!(5), "sha256"), (json!(null), "id")] {
            let asked = json!({ "name": "old", "account": "acme", "sha256": bad, "id": "0123456789AB" });
            let (status, answer) = stage.post("/api/tokens", &asked).await;
            assert_eq!((status, answer["errors"][field].is_array()), (422, true), "{answer}");
            assert!(!answer.to_string().contains("17|abc"));
        }
    }
}

#[tokio::test]
async fn listings_are_filtered_and_paged() {
    for stage in stages() {
        for number in 0..7 {
            let account = if number % 2 == 0 { "even" } else { "odd #1" };
            stage.create(json!({ "name": format!("n{number}"), "account": account })).await;
        }
        let mut names = Vec::new();
        let mut path = "/api/tokens?limit=3".to_owned();
        let pages = loop {
            let page = stage.get(&path).await;
            names.extend(
                page["tokens"].as_array().unwrap().iter().map(|token| token["name"].as_str().unwrap().to_owned()),
            );
            let Some(next) = page["next"].as_str() else { break names.len().div_ceil(3) };
            path = format!("/api/tokens?limit=3&after={next}");
        };
        names.sort();
        assert_eq!((pages, names), (3, (0..7).map(|number| format!("n{number}")).collect::<Vec<_>>()));
        let count =
            async |query: &str| stage.get(&format!("/api/tokens?{query}")).await["tokens"].as_array().unwrap().len();
        assert_eq!((count("account=odd+%231").await, count("name=N3").await, count("state=revoked").await), (3, 1, 0));
        let (status, revoked) = stage.post("/api/accounts/revoke", &json!({ "account": "even" })).await;
        assert_eq!((status, revoked["revoked"].as_array().unwrap().len()), (200, 4));
        assert_eq!((count("state=revoked").await, count("state=revoked&account=even").await), (4, 4));
        let trail = stage.get("/api/audit?action=revoke&limit=2").await;
        assert_eq!(trail["entries"].as_array().unwrap().len(), 2);
        let rest = stage.get(&format!("/api/audit?action=revoke&before={}", trail["next"])).await;
        assert_eq!(rest["entries"].as_array().unwrap().len(), 2);
    }
}

#[tokio::test]
async fn every_error_is_reported_by_field() {
    let stage = &stages()[0];
    let bad = json!({ "name": "", "acount": "x", "permissions": ["a b"], "plan": "gold", "limits": { "minute": "60" },
        "concurrent_calls": 1.5, "in_flight": "x", "expires_at": "tomorrow" });
    let (status, answer) = stage.post("/api/tokens", &bad).await;
    assert_eq!((status, &answer["code"]), (422, &"invalid".into()));
    let fields: Vec<_> = answer["errors"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields, ["account", "acount", "concurrent_calls", "expires_at", "in_flight"], "{answer}");
    let bad = json!({ "name": "x\u{0}", "account": "é", "permissions": ["a b"], "plan": "standrad", "limits": { "minute": "60" },
        "concurrent_calls": 0, "in_flight": 0, "expires_at": "2001-01-01T00:00:00Z" });
    let (_, answer) = stage.post("/api/tokens", &bad).await;
    let errors = answer["errors"].as_object().unwrap();
    assert_eq!(errors.len(), 8, "{answer}");
    assert!(errors["plan"][0].as_str().unwrap().contains("did you mean \"standard\"?"));
    assert!(answer["message"].as_str().unwrap().ends_with("(and 7 more errors)."), "{answer}");
    let made = stage.create(json!({ "name": "a", "account": "acme" })).await;
    let (status, _, answer) =
        send(stage.patch(id(&made), &made["version"], &json!({ "account": "other", "name": null }))).await;
    assert_eq!((status, answer["errors"].as_object().unwrap().len()), (422, 2), "{answer}");
    for query in ["acount=a", "state=actve", "limit=0", "limit=a", "after=x", "account=a&account=b"] {
        let (status, _, answer) = send(stage.ask(Method::GET, &format!("/api/tokens?{query}"))).await;
        assert_eq!((status, answer["errors"].as_object().unwrap().len()), (422, 1), "{query}: {answer}");
    }
    assert_eq!(send(stage.ask(Method::GET, "/api/tokens?account=%ff")).await.0, 400);
    assert_eq!(
        stage.post(&format!("/api/tokens/{}/rotate", id(&made)), &json!({ "grace_seconds": 8_000_000 })).await.0,
        422
    );
    let (status, _, answer) = send(stage.ask(Method::GET, "/api/tokens/nobody")).await;
    assert_eq!((status, &answer["code"]), (404, &"not_found".into()));
}

#[tokio::test]
async fn bodies_must_be_json_of_a_bounded_size() {
    let stage = &stages()[0];
    let good = json!({ "name": "a", "account": "acme" }).to_string();
    let ask = async |kind: &str, body: String| {
        let request = stage.ask(Method::POST, "/api/tokens").header("content-type", kind).body(body);
        let (status, headers, body) = send(request).await;
        assert_eq!(headers["content-type"], "application/json", "{body}");
        status
    };
    assert_eq!(ask("application/json", good.clone()).await, 201);
    assert_eq!(ask("text/plain", good.clone()).await, 415);
    assert_eq!(ask("application/x-www-form-urlencoded", "name=a&account=b".into()).await, 415);
    for broken in ["", "{", "[]", "\u{1}", "{\"name\":\"a\",\"name\":\"b\",\"account\":\"acme\"}"] {
        let status = ask("application/json", broken.to_owned()).await;
        assert!([400, 422].contains(&status), "{broken}: {status}");
    }
    assert_eq!(ask("application/json", "[".repeat(60_000)).await, 400);
    assert_eq!(ask("application/json", format!("{good}{}", " ".repeat(70_000))).await, 413);
    let chunks = futures_util::stream::iter((0..100).map(|_| Ok::<_, std::io::Error>(" ".repeat(1_000))));
    let request = stage.ask(Method::POST, "/api/tokens").header("content-type", "application/json");
    assert_eq!(send(request.body(reqwest::Body::wrap_stream(chunks))).await.0, 413);
    for (method, path, allow) in [
        (Method::PUT, "/api/tokens", "GET, HEAD, POST"),
        (Method::DELETE, "/api/tokens/a", "GET, HEAD, PATCH"),
        (Method::GET, "/api/tokens/a/revoke", "POST"),
    ] {
        let (status, headers, _) = send(stage.ask(method, path)).await;
        assert_eq!((status, headers["allow"].to_str().unwrap()), (405, allow));
    }
    let head = stage.ask(Method::HEAD, "/api/tokens").send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.headers()["content-type"].to_str().unwrap()), (200, "application/json"));
    assert_eq!(head.text().await.unwrap(), "");
}

#[tokio::test]
async fn an_unreachable_store_is_503_without_details() {
    let [file, mut redis] = stages();
    let made = redis.create(json!({ "name": "a", "account": "acme" })).await;
    let port = redis.redis.as_ref().unwrap().port().to_string();
    drop(redis.redis.take());
    std::fs::write(file.gateway.site.path("tokens.yaml"), "tokens: [{ broken").unwrap();
    for stage in [&redis, &file] {
        let path = format!("/api/tokens/{}", id(&made));
        for request in [
            stage.ask(Method::GET, "/api/tokens"),
            stage.ask(Method::GET, &path),
            stage.ask(Method::POST, "/api/tokens").json(&json!({ "name": "a", "account": "acme" })),
            stage.ask(Method::POST, &format!("{path}/revoke")),
        ] {
            let (status, headers, body) = send(request).await;
            assert_eq!((status, &body["code"]), (503, &"unavailable".into()), "{body}");
            assert!(headers.contains_key("retry-after"));
            let text = body.to_string();
            assert!(!text.contains(&port) && !text.contains("tokens.yaml") && !text.contains("127.0.0.1"), "{text}");
        }
        assert_eq!(send(stage.ask(Method::GET, "/livez")).await.0, 200);
    }
}

#[tokio::test]
async fn many_foreign_tokens_are_registered_in_one_request() {
    for stage in stages() {
        let hash = |secret: &str| callgate::tokens::TokenHash::of(secret).to_hex();
        let body = json!({ "account": "acme", "tokens": [
            { "token": hash("first-secret"), "abilities": ["calls:read"], "name": "one", "id": 7 },
            { "sha256": "first", "name": "leaked" },
            { "sha256": hash("second"), "expires_at": "2020-01-01 00:00:00" },
            7,
        ] });
        let mut tried = body.clone();
        tried["dry_run"] = true.into();
        let (status, answer) = stage.post("/api/import", &tried).await;
        assert_eq!(
            (status, &answer["dry_run"], stage.status(&"1|first-secret".into()).await),
            (200, &true.into(), 401)
        );
        let (status, answer) = stage.post("/api/import", &body).await;
        let id = answer["imported"][0]["id"].as_str().unwrap().to_owned();
        assert_eq!((status, &answer["imported"]), (200, &json!([{ "place": 1, "id": id }])), "{answer}");
        assert_eq!((&answer["ended"], &answer["present"]), (&json!([3]), &json!([])));
        let errors: Vec<_> =
            answer["errors"].as_array().unwrap().iter().map(|it| (&it["place"], &it["field"])).collect();
        assert_eq!(errors, [(&2.into(), &"sha256".into()), (&4.into(), &Value::Null)], "{answer}");
        assert_eq!(stage.status(&"1|first-secret".into()).await, 502, "it works at once");
        let (_, again) = stage.post("/api/import", &body).await;
        assert_eq!((&again["imported"], &again["present"][0]["id"]), (&json!([]), &id.as_str().into()));
        let entry = &stage.get("/api/audit?action=import").await["entries"][0];
        assert_eq!((&entry["tokens"], &entry["account"]), (&json!([id]), &"acme".into()));
        let wrong = json!({ "tokens": [], "account": 5, "dry_run": "yes", "colour": "red" });
        let (status, faults) = stage.post("/api/import", &wrong).await;
        let fields: Vec<&String> = faults["errors"].as_object().unwrap().keys().collect();
        assert_eq!((status, fields.len()), (422, 4), "{faults}");
    }
}
