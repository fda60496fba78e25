//! Limits that a route has of its own beside those of its tokens' plans, as clients and operators meet them.

use std::sync::Arc;

use callgate::config::{OnFailure, Plan};
use callgate::limits::{Charge, LimitOutcome, LimitSubject, Limiter, MemoryLimiter, Source};
use serde_json::Value;

use super::stores::{VERSION, calls_of, instance, issue, plan, route, say, unix_ms};
use crate::support::client::{get, header, http1, http2};
use crate::support::gateway::Site;
use crate::support::redis::RedisServer;
use crate::support::upstream::Upstream;

const ROUTES: &str = "routes:\n  - { name: dial, path: /dial, limits: { burst: 2/10s, spree: 3/1h }, upstream: up }\n  \
                      - { name: dear, path: /dear, cost: 3, limits: { dearth: 7/1m }, upstream: up }\n  \
                      - { path: \"/{*rest}\", upstream: up }\n";

fn site(store: &str, upstream: &Upstream, plan: &str) -> Arc<Site> {
    Site::new(&format!(
        "{store}\nplans: {{ standard: {plan} }}\nlimits: {{ headers: [x-ratelimit, ietf] }}\n{ROUTES}\
         upstreams: {{ up: {{ endpoints: [\"http://{}\"] }} }}",
        upstream.address
    ))
}

fn stores() -> [(String, Option<RedisServer>); 2] {
    let server = RedisServer::start();
    let redis = format!("store: {{ redis: {{ url: \"{}\", deadline: 10s }} }}", server.url());
    [("store: memory\ntokens: { file: tokens.yaml }".to_owned(), None), (redis, Some(server))]
}

#[tokio::test]
async fn a_route_limits_its_own_requests_and_no_others() {
    for (store, _server) in stores() {
        let upstream = Upstream::start().await;
        let site = site(&store, &upstream, "{ limits: { minute: 9/1m } }");
        let (token, other) = (site.token(&[]), site.token(&[]));
        let gateway = site.serve();
        let client = http2(&gateway);
        let ask = |path| get(&client, &gateway, path, &token);
        let reported = |response: &reqwest::Response| {
            ["limit", "remaining"].map(|name| header(response, &format!("x-ratelimit-{name}")).to_owned())
        };
        assert_eq!(reported(&ask("/dial").await), ["2", "1"]);
        assert_eq!(reported(&ask("/dial").await), ["2", "0"]);
        for client in [&client, &http1(&gateway)] {
            let refused = get(client, &gateway, "/dial", &token).await;
            assert_eq!((refused.status().as_u16(), reported(&refused)), (429, ["2", "0"].map(str::to_owned)));
            assert_eq!(
                header(&refused, "ratelimit-policy"),
                "\"minute\";q=9;w=60, \"burst\";q=2;w=10, \"spree\";q=3;w=3600"
            );
            let standing = header(&refused, "ratelimit").to_owned();
            assert!(standing.contains("\"minute\";r=7;t=") && standing.contains("\"spree\";r=1;t="), "{standing}");
            let wait: u64 = header(&refused, "retry-after").parse().unwrap();
            assert!((1..=10).contains(&wait), "{wait}");
            let body: Value = refused.json().await.unwrap();
            assert!(body["message"].as_str().unwrap().contains("\"burst\" of 2 requests in 10 seconds"), "{body}");
        }
        // A request that the route's limit denies is counted nowhere, and other routes still admit.
        let elsewhere = ask("/echo").await;
        assert_eq!((elsewhere.status().as_u16(), reported(&elsewhere)), (200, ["9", "6"].map(str::to_owned)));
        assert_eq!(header(&elsewhere, "ratelimit-policy"), "\"minute\";q=9;w=60");
        assert_eq!(reported(&get(&client, &gateway, "/dial", &other).await), ["2", "1"]);
        // A cost counts in both logs, all or nothing.
        assert_eq!(reported(&ask("/dear").await), ["9", "3"]);
        assert_eq!(reported(&ask("/dear").await), ["9", "0"]);
        // Both refuse: the one that frees later is told.
        assert_eq!(reported(&ask("/dear").await), ["7", "1"]);
        let line = gateway.access("/dear", 3).await.pop().unwrap();
        assert_eq!(line["limits"]["dearth"], serde_json::json!({ "used": 6, "limit": 7 }));
        assert_eq!(upstream.seen().len(), 6);
    }
}

#[tokio::test]
async fn a_route_of_a_plan_without_limits_has_its_own() {
    for (store, _server) in stores() {
        let upstream = Upstream::start().await;
        let site = site(&store, &upstream, "{ limits: {} }");
        let token = site.token(&[]);
        let gateway = site.serve();
        let client = http1(&gateway);
        for status in [200, 200, 429] {
            let response = get(&client, &gateway, "/dial", &token).await;
            assert_eq!((response.status().as_u16(), header(&response, "x-ratelimit-limit")), (status, "2"));
        }
        let free = get(&client, &gateway, "/echo", &token).await;
        assert_eq!((free.status().as_u16(), header(&free, "x-ratelimit-limit")), (200, ""));
    }
}

#[tokio::test]
async fn a_shadow_plan_covers_route_limits_too() {
    let upstream = Upstream::start().await;
    let site =
        site("store: memory\ntokens: { file: tokens.yaml }", &upstream, "{ limits: { minute: 9/1m }, shadow: true }");
    let token = site.token(&[]);
    let gateway = site.serve();
    let client = http1(&gateway);
    for shadow in ["", "", "denied"] {
        let response = get(&client, &gateway, "/dial", &token).await;
        assert_eq!((response.status().as_u16(), header(&response, "x-ratelimit-shadow")), (200, shadow));
    }
}

#[tokio::test]
async fn the_windows_of_routes_are_shown_and_reset() {
    for (store, _server) in stores() {
        let upstream = Upstream::start().await;
        let site = site(&store, &upstream, "{ limits: { minute: 9/1m } }");
        let token = site.token(&[]);
        let gateway = site.serve();
        let client = http1(&gateway);
        for _ in 0..3 {
            get(&client, &gateway, "/dial", &token).await;
        }
        let limits = |arguments: &[&str]| {
            let mut command = std::process::Command::new(crate::support::gateway::PROGRAM);
            let output = command.arg("limits").args(arguments).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let admin = gateway.admin.to_string();
        let peek =
            || -> Value { serde_json::from_str(&limits(&["peek", "--admin", &admin, &token.id, "--json"])).unwrap() };
        let windows = peek()["windows"].clone();
        let seen: Vec<_> = windows
            .as_array()
            .unwrap()
            .iter()
            .map(|window| (&window["route"], &window["name"], &window["used"]))
            .collect();
        let (none, dial, dear) = (Value::Null, Value::from("dial"), Value::from("dear"));
        let [minute, burst, spree, dearth] = ["minute", "burst", "spree", "dearth"].map(Value::from);
        let [zero, two] = [0, 2].map(Value::from);
        let wanted = [(&none, &minute, &two), (&dial, &burst, &two), (&dial, &spree, &two), (&dear, &dearth, &zero)];
        assert_eq!(seen, wanted);
        let human = limits(&["peek", "--admin", &admin, &token.id]);
        assert!(
            human.contains("\nburst (dial)   2 of 2  in ") && human.contains("\ndearth (dear)  0 of 7  now\n"),
            "{human}"
        );
        limits(&["reset", "--yes", "--admin", &admin, &token.id]);
        assert!(peek()["windows"].as_array().unwrap().iter().all(|window| window["used"] == 0), "all logs are cleared");
        assert_eq!(get(&client, &gateway, "/dial", &token).await.status(), 200);
    }
}

async fn ask(limiter: &Limiter, plan: &Plan, charge: Charge<'_>) -> (bool, Source) {
    match limiter
        .decide(&LimitSubject { token_id: "t", version: VERSION }, plan, charge, unix_ms(), &|| true)
        .await
        .unwrap()
    {
        LimitOutcome::Decided(decision, _) => (decision.admitted, decision.source),
        LimitOutcome::Stale => panic!("stale"),
    }
}

#[tokio::test]
async fn a_decision_on_both_logs_is_one_round_trip_and_a_denial_is_cached_per_route() {
    let server = RedisServer::start();
    let (limiter, redis) = instance(&server, OnFailure::Local).await;
    issue(&redis, "t").await;
    let (plan, own, other) = (plan(&[(9, 60_000)]), route("own", &[(3, 30_000)]), route("other", &[(3, 30_000)]));
    let [own, other] = [&own, &other].map(|own| Charge { limits: Some(own), ..1.into() });
    ask(&limiter, &plan, own).await;
    say(&redis, "CONFIG RESETSTAT").await;
    assert_eq!(ask(&limiter, &plan, own).await, (true, Source::Redis));
    assert_eq!(ask(&limiter, &plan, own).await, (true, Source::Redis));
    assert_eq!(calls_of(&redis, "evalsha").await, 2);
    assert!(!ask(&limiter, &plan, own).await.0);
    assert_eq!(ask(&limiter, &plan, own).await, (false, Source::DenyCache));
    assert_eq!(ask(&limiter, &plan, other).await, (true, Source::Redis));
    assert_eq!(ask(&limiter, &plan, 1.into()).await, (true, Source::Redis));
    let stale =
        limiter.decide(&LimitSubject { token_id: "t", version: 8 }, &plan, other, unix_ms(), &|| true).await.unwrap();
    assert!(matches!(stale, LimitOutcome::Stale));
}

#[tokio::test]
async fn the_local_limiter_knows_the_logs_of_routes() {
    let mut server = RedisServer::start();
    let (limiter, redis) = instance(&server, OnFailure::Local).await;
    issue(&redis, "t").await;
    let (plan, own) = (plan(&[(9, 60_000)]), route("own", &[(3, 30_000)]));
    let own = Charge { limits: Some(&own), ..1.into() };
    assert_eq!(ask(&limiter, &plan, own).await, (true, Source::Redis));
    assert_eq!(ask(&limiter, &plan, own).await, (true, Source::Redis));
    server.kill();
    assert_eq!(ask(&limiter, &plan, own).await, (true, Source::Local));
    assert_eq!(ask(&limiter, &plan, own).await, (false, Source::Local));
    assert_eq!(ask(&limiter, &plan, 1.into()).await, (true, Source::Local));
}

#[tokio::test]
async fn a_call_is_taken_only_if_both_logs_and_the_cap_have_room() {
    let server = RedisServer::start();
    let (shared, redis) = instance(&server, OnFailure::Deny).await;
    issue(&redis, "t").await;
    let memory = Limiter::Memory(Arc::new(MemoryLimiter::new(64)));
    for limits in [&[][..], &[(9, 60_000)]] {
        for limiter in [&shared, &memory] {
            limiter.reset("t", &[]).await.unwrap();
            let plan = Plan { concurrent_calls: Some(2), ..plan(limits) };
            let own = route(&format!("own{}", limits.len()), &[(3, 30_000)]);
            let open = || async {
                let charge = Charge { cost: 1, limits: Some(&own), opens_call: true };
                let subject = LimitSubject { token_id: "t", version: VERSION };
                let outcome = limiter.decide(&subject, &plan, charge, unix_ms(), &|| true).await.unwrap();
                let LimitOutcome::Decided(decision, lease) = outcome else { panic!("stale") };
                let used: Vec<_> = decision.windows().iter().map(|window| window.used).collect();
                (decision.admitted, decision.too_many_calls, used, lease)
            };
            let used = |used: u32| vec![used; limits.len() + 1];
            let (first, second) = (open().await, open().await);
            assert!(first.0 && second.0 && first.3.is_some() && second.3.is_some());
            let (admitted, too_many, seen, lease) = open().await;
            assert_eq!((admitted, too_many, seen, lease.is_none()), (false, Some(2), used(2), true));
            drop(first);
            if let Limiter::Redis(shared) = limiter {
                shared.give_calls_back().await;
            }
            let third = open().await;
            assert_eq!((third.0, &third.2), (true, &used(3)));
            // The route refuses first: no place is taken, nothing is said of calls.
            drop(second);
            if let Limiter::Redis(shared) = limiter {
                shared.give_calls_back().await;
            }
            let (admitted, too_many, seen, lease) = open().await;
            assert_eq!((admitted, too_many, seen, lease.is_none()), (false, None, used(3), true));
            drop(third);
            if let Limiter::Redis(shared) = limiter {
                shared.give_calls_back().await;
            }
        }
    }
}
