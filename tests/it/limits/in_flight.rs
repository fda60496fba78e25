//! The bound on the requests that one token has in flight.

use reqwest::{Client, Response};

use crate::support::client::{get, header, http1, http2};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::upstream::Upstream;

fn site(upstream: &Upstream, plan: &str) -> std::sync::Arc<Site> {
    Site::new(&format!(
        "store: memory\ntokens: {{ file: tokens.yaml }}\n\
         plans: {{ standard: {{ limits: {{ minute: 100/1m }}, in_flight: 2{plan} }} }}\n\
         routes: [{{ path: \"/{{*rest}}\", upstream: up }}]\nupstreams: {{ up: {{ endpoints: [\"http://{}\"] }} }}",
        upstream.address
    ))
}

async fn two_streams(client: &Client, gateway: &Gateway, token: &Token) -> [Response; 2] {
    let streams = [get(client, gateway, "/events", token).await, get(client, gateway, "/events", token).await];
    assert!(streams.iter().all(|stream| stream.status() == 200));
    streams
}

#[tokio::test]
async fn a_token_has_only_so_many_requests_in_flight() {
    let upstream = Upstream::start().await;
    let site = site(&upstream, "");
    let (tokens, other) = ([site.token(&[]), site.token(&[])], site.token(&[]));
    let gateway = site.serve();
    for (client, token) in [http1(&gateway), http2(&gateway)].into_iter().zip(&tokens) {
        let [first, _second] = two_streams(&client, &gateway, token).await;
        let before = upstream.seen().len();
        let refused = get(&client, &gateway, "/echo", token).await;
        assert_eq!((refused.status().as_u16(), header(&refused, "retry-after")), (429, "1"));
        assert!(refused.text().await.unwrap().contains("\"too_many_in_flight\""));
        assert_eq!(upstream.seen().len(), before);
        assert_eq!(get(&client, &gateway, "/echo", &other).await.status(), 200, "another token has its own");
        drop(first);
        eventually("a request to be let through", async || {
            (get(&client, &gateway, "/echo", token).await.status() == 200).then_some(())
        })
        .await;
    }
    let lines = gateway.access("/echo", 4).await;
    let refused: Vec<_> = lines.iter().filter(|line| line["code"] == "too_many_in_flight").collect();
    assert!(refused.len() >= 2, "{lines:?}");
    assert!(refused.iter().all(|line| line["decided_by"].is_null()), "nothing was counted: {refused:?}");
}

#[tokio::test]
async fn a_shadow_plan_lets_more_requests_pass_and_marks_them() {
    let upstream = Upstream::start().await;
    let site = site(&upstream, ", shadow: true");
    let token = site.token(&[]);
    let gateway = site.serve();
    let client = http2(&gateway);
    let _streams = two_streams(&client, &gateway, &token).await;
    let marked = get(&client, &gateway, "/echo", &token).await;
    assert_eq!((marked.status().as_u16(), header(&marked, "x-ratelimit-shadow")), (200, "denied"));
    assert_eq!(gateway.metric("callgate_shadow_denials_total").await, Some(1.0));
}

#[tokio::test]
async fn a_token_may_have_a_number_of_its_own() {
    let upstream = Upstream::start().await;
    let site = site(&upstream, "");
    let token = site.token_with(&[], &["--in-flight", "3"]);
    let gateway = site.serve();
    let client = http2(&gateway);
    let _streams = two_streams(&client, &gateway, &token).await;
    assert_eq!(get(&client, &gateway, "/echo", &token).await.status(), 200);
    let _third = get(&client, &gateway, "/events", &token).await;
    assert_eq!(get(&client, &gateway, "/echo", &token).await.status(), 429);

    let shown = |arguments: &[&str]| {
        let output = site.run(&[&["token"], arguments, &["--json"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let token_now = shown(&["show", &token.id]);
    assert_eq!((&token_now["in_flight"], &token_now["effective"]["in_flight"]), (&3.into(), &3.into()));
    shown(&["update", &token.id, "--no-in-flight"]);
    let token_now = shown(&["show", &token.id]);
    assert_eq!((&token_now["in_flight"], &token_now["effective"]["in_flight"]), (&serde_json::Value::Null, &2.into()));
}
