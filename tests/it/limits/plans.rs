//! Costs of routes and shadow plans, as clients see them.

use crate::support::client::{get, header, http1, http2};
use crate::support::gateway::{Gateway, Site};
use crate::support::upstream::Upstream;

fn site(upstream: &Upstream, plan: &str) -> std::sync::Arc<Site> {
    let routes = "  - { path: /cheap, upstream: up }\n  - { path: /dear, cost: 5, permission: \"dear:*\", upstream: up }\n  \
                  - { path: /limits, upstream: up }";
    let site = Site::in_memory(upstream.address, routes);
    let config = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), format!("{config}plans: {{ standard: {plan} }}\n")).unwrap();
    site
}

async fn message(response: reqwest::Response) -> String {
    response.json::<serde_json::Value>().await.unwrap()["message"].as_str().unwrap().to_owned()
}

fn remaining(response: &reqwest::Response) -> &str {
    header(response, "x-ratelimit-remaining")
}

#[tokio::test]
async fn a_request_is_charged_the_whole_cost_of_its_route_or_nothing() {
    let upstream = Upstream::start().await;
    let site = site(&upstream, "{ limits: { minute: 12/1m, hour: 100/1h } }");
    let token = site.token(&["dear:*"]);
    let gateway = site.serve();
    let client = http2(&gateway);
    let ask = |path| get(&client, &gateway, path, &token);
    assert_eq!(remaining(&ask("/dear").await), "7");
    assert_eq!(remaining(&ask("/dear").await), "2");
    let refused = ask("/dear").await;
    assert_eq!((refused.status().as_u16(), remaining(&refused)), (429, "2"));
    assert!(message(refused).await.contains("\"minute\" of 12 requests"));
    assert_eq!(remaining(&ask("/cheap").await), "1");
    let unknown = ask("/nowhere").await;
    assert_eq!((unknown.status().as_u16(), remaining(&unknown)), (404, "0"));
    assert_eq!(ask("/cheap").await.status(), 429);
    let line = gateway.access("/nowhere", 1).await.remove(0);
    assert_eq!(line["limits"]["hour"]["used"], 12);
}

#[tokio::test]
async fn a_403_is_charged_the_cost_of_its_route() {
    let upstream = Upstream::start().await;
    let site = site(&upstream, "{ limits: { minute: 12/1m } }");
    let token = site.token(&[]);
    let gateway = site.serve();
    let refused = get(&http1(&gateway), &gateway, "/dear", &token).await;
    assert_eq!((refused.status().as_u16(), remaining(&refused)), (403, "7"));
}

#[tokio::test]
async fn a_token_limit_below_the_cost_of_a_route_is_reported() {
    let upstream = Upstream::start().await;
    let site = site(&upstream, "{ limits: { minute: 12/1m } }");
    let token = site.token_with(&["dear:*"], &["--limit", "minute=3/1m"]);
    let gateway = site.serve();
    for client in [http1(&gateway), http2(&gateway)] {
        let refused = get(&client, &gateway, "/dear", &token).await;
        assert_eq!((refused.status().as_u16(), header(&refused, "x-ratelimit-limit")), (429, "3"));
        assert_eq!(header(&refused, "retry-after"), "60");
        let message = message(refused).await;
        assert_eq!(
            message,
            "This request counts as 5, more than the limit \"minute\" of 3 requests in 60 seconds ever admits."
        );
    }
    assert_eq!(remaining(&get(&http1(&gateway), &gateway, "/cheap", &token).await), "2");
    assert_eq!(upstream.seen().len(), 1);
}

async fn denied_in_shadow(gateway: &Gateway) -> Option<f64> {
    gateway.metric("callgate_shadow_denials_total").await
}

#[tokio::test]
async fn a_shadow_plan_marks_and_forwards_denied_requests() {
    let upstream = Upstream::start().await;
    let site = site(&upstream, "{ limits: { minute: 5/1m, hour: 100/1h }, shadow: true }");
    let token = site.token(&[]);
    let gateway = site.serve();
    assert_eq!(denied_in_shadow(&gateway).await, Some(0.0));
    let [h1, h2] = [http1(&gateway), http2(&gateway)];
    for (request, client) in [&h1, &h2].into_iter().cycle().take(8).enumerate() {
        let response = get(client, &gateway, "/cheap", &token).await;
        assert_eq!(response.status(), 200);
        let marked = if request < 5 { "" } else { "denied" };
        assert_eq!(header(&response, "x-ratelimit-shadow"), marked);
        assert_eq!((header(&response, "x-ratelimit-limit"), header(&response, "retry-after")), ("5", ""));
        assert_eq!(remaining(&response), 4usize.saturating_sub(request).to_string());
    }
    assert_eq!(upstream.seen().len(), 8);
    assert_eq!(denied_in_shadow(&gateway).await, Some(3.0));
    let lines = gateway.access("/cheap", 8).await;
    let marked: Vec<_> = lines.iter().map(|line| line["shadow"].as_str().unwrap_or_default()).collect();
    assert_eq!(marked, ["", "", "", "", "", "denied", "denied", "denied"]);
    assert_eq!(lines[7]["limits"]["hour"]["used"], 5, "what is denied is not counted");
    let unknown = get(&h1, &gateway, "/nowhere", &token).await;
    assert_eq!((unknown.status().as_u16(), header(&unknown, "x-ratelimit-shadow")), (404, "denied"));
}
