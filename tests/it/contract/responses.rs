//! Limits, and the answers of upstreams.

use super::*;

#[tokio::test]
async fn the_sixty_first_request_is_429_and_not_counted() {
    let stage = Stage::new().await;
    for _ in 0..30 {
        for response in stage.get("/echo").await {
            assert_eq!(response.status(), 200);
        }
    }
    for _ in 0..3 {
        for response in stage.get("/echo").await {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            let retry: u64 = header(&response, "retry-after").parse().unwrap();
            let reset: u64 = header(&response, "x-ratelimit-reset").parse().unwrap();
            assert!((1..=60).contains(&retry));
            assert!(reset.abs_diff(now.as_secs() + retry) <= 1, "{reset} {retry} {now:?}");
            assert_eq!(header(&response, "x-ratelimit-limit"), "60");
            assert_eq!(header(&response, "x-ratelimit-remaining"), "0");
            let message = rejected(response, 429, "rate_limited").await;
            assert!(message.contains("\"minute\""), "{message}");
        }
    }
    assert_eq!(stage.upstream.seen().len(), 60);
    let line = stage.gateway.access("/echo", 66).await.pop().unwrap();
    assert_eq!(line["limits"]["hour"]["used"], 60);
    assert_eq!(line["code"], "rate_limited");
    assert_eq!(stage.gateway.metric(r#"callgate_decisions_total{outcome="denied",source="local"}"#).await, Some(6.0));
}

#[tokio::test]
async fn a_422_of_the_upstream_is_passed_unchanged() {
    let stage = Stage::new().await;
    for response in stage.get("/status/422").await {
        assert_eq!(response.status(), 422);
        assert_eq!(header(&response, "x-ratelimit-limit"), "60");
        assert_eq!(response.text().await.unwrap(), r#"{"message":"from the upstream","errors":{"to":["no"]}}"#);
    }
}

#[tokio::test]
async fn the_upstreams_own_limit_headers_are_replaced() {
    let stage = Stage::with("", "limits: { headers: [x-ratelimit, ietf] }").await;
    for (count, response) in stage.get("/limits").await.into_iter().enumerate() {
        assert_eq!(response.headers().get_all("x-ratelimit-limit").iter().count(), 1);
        assert_eq!(header(&response, "x-ratelimit-limit"), "60");
        assert_eq!(header(&response, "x-internal"), "");
        assert_eq!(header(&response, "ratelimit-policy"), "\"minute\";q=60;w=60, \"hour\";q=1000;w=3600");
        let expected = format!("\"minute\";r={};t=60, \"hour\";r={};t=3600", 59 - count, 999 - count);
        assert_eq!(header(&response, "ratelimit"), expected);
    }
}

#[tokio::test]
async fn upstream_failures_are_502_and_504_and_say_nothing_of_the_upstream() {
    let stage = Stage::new().await;
    for response in stage.get("/dead").await {
        assert_eq!(header(&response, "x-ratelimit-limit"), "60");
        let message = rejected(response, 502, "bad_gateway").await;
        assert!(!message.contains("127.0.0.1"), "{message}");
    }
    for response in stage.get("/slow/5000").await {
        rejected(response, 504, "gateway_timeout").await;
    }
    let line = stage.gateway.access("/dead", 2).await.pop().unwrap();
    assert!(line["error"].as_str().unwrap().contains("Connection refused"), "{line}");
}

#[tokio::test]
async fn bodies_over_the_routes_limit_are_413_announced_or_not() {
    let stage = Stage::new().await;
    let url = stage.gateway.url("/echo/upload");
    for client in &stage.clients {
        let request = || client.post(&url).bearer_auth(&stage.token.secret);
        let reported: Value = request().body(vec![b'x'; 100]).send().await.unwrap().json().await.unwrap();
        assert_eq!(reported["body_length"], 100);
        let announced = request().body(vec![b'x'; 101]).send().await.unwrap();
        rejected(announced, 413, "body_too_large").await;
        let pieces = futures_util::stream::iter((0..3).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 50])));
        let chunked = request().body(reqwest::Body::wrap_stream(pieces)).send().await.unwrap();
        rejected(chunked, 413, "body_too_large").await;
    }
}
