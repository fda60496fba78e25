//! Missing, bad and good tokens, permissions and public routes.

use super::*;

#[tokio::test]
async fn no_token_is_401_without_an_error_code_wherever_it_is_sent() {
    let stage = Stage::new().await;
    for client in &stage.clients {
        for path in ["/echo", "/nowhere", "/echo?access_token=x", "/status/200"] {
            let response = client.get(stage.gateway.url(path)).send().await.unwrap();
            assert_eq!(header(&response, "www-authenticate"), "Bearer realm=\"api\"");
            assert_eq!(header(&response, "x-ratelimit-limit"), "");
            rejected(response, 401, "unauthenticated").await;
        }
        let basic = client.get(stage.gateway.url("/echo")).basic_auth("a", Some("b")).send().await.unwrap();
        rejected(basic, 401, "unauthenticated").await;
    }
    assert!(stage.upstream.seen().is_empty());
}

#[tokio::test]
async fn every_bad_token_gets_one_and_the_same_answer() {
    let stage = Stage::new().await;
    let site = &stage.gateway.site;
    let revoked = site.token(&[]);
    crate::support::eventually("the new token to be known", async || {
        let response = get(&stage.clients[1], &stage.gateway, "/echo", &revoked).await;
        (response.status() != StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
    assert!(site.run(&["token", "revoke", "--yes", &revoked.id]).status.success());
    let mut last = stage.token.secret.clone();
    let flipped = if last.pop() == Some('a') { 'b' } else { 'a' };
    last.push(flipped);
    let client = &stage.clients[1];
    crate::support::eventually("the revocation to be seen", async || {
        let response = get(client, &stage.gateway, "/echo", &revoked).await;
        (response.status() == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
    let mut answers = std::collections::BTreeSet::new();
    for secret in
        [revoked.secret.as_str(), &last, "kal_live_short", "foreign-but-unknown-token", "12|unknownunknownunknown"]
    {
        let response = client.get(stage.gateway.url("/echo")).bearer_auth(secret).send().await.unwrap();
        assert_eq!(header(&response, "www-authenticate"), "Bearer realm=\"api\", error=\"invalid_token\"");
        answers.insert(rejected(response, 401, "invalid_token").await);
    }
    assert_eq!(answers.len(), 1);
    // The log says more than the client learns.
    crate::support::eventually("the lines of all refusals", async || {
        let lines = stage.gateway.log();
        let has = |reason: &str, token: Option<&str>| {
            lines.iter().any(|line| line["reason"] == reason && line["token_id"].as_str() == token)
        };
        let all = has("revoked", Some(&revoked.id)) && has("malformed", None) && has("unknown", None);
        all.then_some(())
    })
    .await;
}

#[tokio::test]
async fn two_authorization_headers_are_400() {
    let stage = Stage::new().await;
    let request = format!(
        "GET /echo HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {0}\r\nauthorization: Bearer {0}\r\nconnection: close\r\n\r\n",
        stage.token.secret
    );
    let answer = exchange(&stage.gateway, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("error=\"invalid_request\""), "{answer}");
}

#[tokio::test]
async fn a_good_token_is_forwarded_with_limit_headers() {
    let stage = Stage::new().await;
    let [h1, h2] = stage.get("/echo?a=b").await;
    assert_eq!(header(&h1, "x-ratelimit-remaining"), "59");
    assert_eq!(header(&h2, "x-ratelimit-remaining"), "58");
    for response in [h1, h2] {
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "x-ratelimit-limit"), "60");
        let reset: u64 = header(&response, "x-ratelimit-reset").parse().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!((now + 50..=now + 61).contains(&reset), "{reset} at {now}");
        let reported: Value = response.json().await.unwrap();
        assert_eq!(reported["target"], "/echo?a=b");
    }
}

#[tokio::test]
async fn a_missing_permission_is_403_and_named() {
    let stage = Stage::new().await;
    let token = stage.gateway.site.token(&["calls:write", "other:*"]);
    for (count, client) in stage.clients.iter().enumerate() {
        let response = crate::support::eventually("the new token to be known", async || {
            let response = get(client, &stage.gateway, "/echo", &token).await;
            (response.status() != StatusCode::UNAUTHORIZED).then_some(response)
        })
        .await;
        assert_eq!(
            header(&response, "www-authenticate"),
            "Bearer realm=\"api\", error=\"insufficient_scope\", scope=\"calls:read\""
        );
        assert_eq!(header(&response, "x-ratelimit-remaining"), (59 - count).to_string());
        let message = rejected(response, 403, "insufficient_permission").await;
        assert!(message.contains("calls:read"), "{message}");
    }
}

#[tokio::test]
async fn a_public_route_needs_no_token_and_counts_no_request() {
    let stage = Stage::new().await;
    for client in &stage.clients {
        let response = client.get(stage.gateway.url("/public")).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "x-ratelimit-limit"), "");
        let reported: Value = response.json().await.unwrap();
        assert!(!reported["headers"].to_string().contains("x-callgate-"), "{reported}");
    }
}

#[tokio::test]
async fn upstreams_get_the_identity_and_never_the_token() {
    let stage = Stage::new().await;
    let client = &stage.clients[0];
    let request = client
        .get(stage.gateway.url("/echo"))
        .bearer_auth(&stage.token.secret)
        .header("x-callgate-account", "forged")
        .header("x_callgate_plan", "forged")
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-request-id", "mine-1");
    let response = request.send().await.unwrap();
    assert_eq!(header(&response, "x-request-id"), "mine-1");
    let reported = response.text().await.unwrap();
    assert!(
        !reported.contains("forged") && !reported.contains("6.6.6.6") && !reported.contains(&stage.token.secret),
        "{reported}"
    );
    let headers = &stage.upstream.seen()[0].headers;
    assert_eq!(headers["x-callgate-token-id"], stage.token.id.as_str());
    assert_eq!(headers["x-callgate-account"], "acme");
    assert_eq!(headers["x-callgate-permissions"], "calls:*");
    assert_eq!(headers["x-callgate-plan"], "standard");
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(headers["x-forwarded-proto"], "https");
    assert_eq!(headers["x-request-id"], "mine-1");
    assert_eq!(headers["via"], "1.1 callgate");
    assert_eq!(headers["host"], format!("localhost:{}", stage.gateway.https.port()));
    assert!(!stage.gateway.output().contains(&stage.token.secret));
}
