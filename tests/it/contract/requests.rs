//! Routes, methods, paths and plain HTTP.

use super::*;

#[tokio::test]
async fn unknown_routes_and_methods_count_and_carry_limit_headers() {
    let stage = Stage::new().await;
    for response in stage.get("/nowhere").await {
        assert_eq!(header(&response, "x-ratelimit-limit"), "60");
        rejected(response, 404, "not_found").await;
    }
    let client = &stage.clients[1];
    let response = client.delete(stage.gateway.url("/echo")).bearer_auth(&stage.token.secret).send().await.unwrap();
    assert_eq!(header(&response, "allow"), "GET, HEAD, POST");
    assert_eq!(header(&response, "x-ratelimit-remaining"), "57");
    rejected(response, 405, "method_not_allowed").await;
}

#[tokio::test]
async fn trace_and_connect_are_405() {
    let stage = Stage::new().await;
    for request in
        ["TRACE /echo HTTP/1.1\r\nhost: localhost\r\n", "CONNECT localhost:1 HTTP/1.1\r\nhost: localhost\r\n"]
    {
        let request = format!("{request}authorization: Bearer {}\r\nconnection: close\r\n\r\n", stage.token.secret);
        let answer = exchange(&stage.gateway, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(answer.contains("\r\nallow: "), "{answer}");
    }
    let trace = stage.clients[1].request(Method::TRACE, stage.gateway.url("/echo")).send().await.unwrap();
    rejected(trace, 405, "method_not_allowed").await;
    assert!(stage.upstream.seen().is_empty());
}

#[tokio::test]
async fn head_gets_the_headers_without_the_body() {
    let stage = Stage::new().await;
    for client in &stage.clients {
        for (path, status) in [("/nowhere", 404), ("/echo", 200)] {
            let request = client.head(stage.gateway.url(path)).bearer_auth(&stage.token.secret);
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), status);
            assert!(header(&response, "content-length").parse::<u64>().unwrap() > 10, "{path}");
            assert_eq!(response.bytes().await.unwrap().len(), 0);
        }
        let response = client.head(stage.gateway.url("/echo")).send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.bytes().await.unwrap().len()), (401, 0));
    }
}

#[tokio::test]
async fn plain_http_is_refused_and_redirected_only_without_a_credential() {
    let stage = Stage::with(", http: \"127.0.0.1:0\", redirect: true", "").await;
    let plain = format!("http://localhost:{}/echo?a=b", stage.gateway.http.unwrap().port());
    let client = client::builder(&stage.gateway).build().unwrap();
    let redirected = client.get(&plain).send().await.unwrap();
    // Port 0 in the configuration: the redirect can only name what is configured.
    assert_eq!(redirected.status(), 308);
    assert!(header(&redirected, "location").starts_with("https://localhost"));
    // A host that neither a route nor a certificate names may be anybody's.
    for host in ["evil.test", "localhost.evil.test", "192.0.2.1", "[2001:db8::1]"] {
        rejected(client.get(&plain).header("host", host).send().await.unwrap(), 403, "https_required").await;
    }
    for host in ["localhost", "LOCALHOST:80", "localhost.", "127.0.0.1"] {
        assert_eq!(client.get(&plain).header("host", host).send().await.unwrap().status(), 308, "{host}");
    }
    for request in [
        client.get(&plain).bearer_auth(&stage.token.secret),
        client.get(&plain).header("cookie", "a=b"),
        client.get(format!("{plain}&access_token=x")),
        client.post(&plain),
    ] {
        rejected(request.send().await.unwrap(), 403, "https_required").await;
    }
    assert!(stage.upstream.seen().is_empty());
}

#[tokio::test]
async fn plain_http_is_403_where_no_redirect_is_configured() {
    let stage = Stage::with(", http: \"127.0.0.1:0\"", "").await;
    let plain = format!("http://localhost:{}/echo", stage.gateway.http.unwrap().port());
    let client = client::builder(&stage.gateway).build().unwrap();
    rejected(client.get(&plain).send().await.unwrap(), 403, "https_required").await;
}

#[tokio::test]
async fn ambiguous_paths_never_reach_a_route() {
    let stage = Stage::new().await;
    let paths = [
        "/echo/../status/200",
        "/echo/./x",
        "/echo//x",
        "/echo/%2e%2e/x",
        "/echo/a%2fb",
        "/echo/a%5cb",
        "/echo/a;b",
        "/echo/%00",
        "/echo/%c0%ae",
        "/echo/%zz",
        "/%65cho/..%2fx",
    ];
    for path in paths {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\r\n", stage.token.secret);
        let answer = exchange(&stage.gateway, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
    }
    assert!(stage.upstream.seen().is_empty());
    let response = &stage.get("/%65cho").await[0];
    assert_eq!(response.status(), 200);
    assert_eq!(stage.upstream.seen()[0].target, "/%65cho");
}

#[tokio::test]
async fn options_addressed_to_the_gateway_are_answered_by_it() {
    let stage = Stage::new().await;
    let auth = format!("authorization: Bearer {}\r\n", stage.token.secret);
    let ask = async |target: &str, more: &str| {
        let request = format!("OPTIONS {target} HTTP/1.1\r\nhost: localhost\r\n{more}connection: close\r\n\r\n");
        crate::support::client::exchange(&stage.gateway, request.as_bytes()).await
    };
    assert!(ask("*", "").await.starts_with("HTTP/1.1 401 "));
    for (target, hops) in [("*", ""), ("/status/200", "max-forwards: 0\r\n")] {
        let answer = ask(target, &format!("{auth}{hops}")).await;
        assert!(answer.starts_with("HTTP/1.1 204 ") && answer.contains("\r\nx-ratelimit-limit: 60\r\n"), "{answer}");
        assert!(answer.contains("\r\nallow: DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT\r\n"), "{answer}");
    }
    assert!(stage.upstream.seen().is_empty());
    for (hops, left) in [("1", "0"), ("10", "9"), ("many", "many")] {
        let answer = ask("/status/200", &format!("{auth}max-forwards: {hops}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(stage.upstream.seen().pop().unwrap().headers["max-forwards"], left);
    }
}
