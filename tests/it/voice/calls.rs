//! Calls over the API: placed, listed, answered and hung up; and the errors.

use super::*;

#[tokio::test]
async fn a_call_is_placed_shown_listed_answered_and_hung_up() {
    let upstream = Upstream::start().await;
    let order = json!({ "to": "+15551234567", "from": "+442071838750", "record": true, "colour": "ignored" });
    let answer = upstream.request(Method::POST, "/api/v1/calls").json(&order).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    let path = answer.headers()["location"].to_str().unwrap().to_owned();
    let placed: Value = answer.json().await.unwrap();
    assert_eq!(path, format!("/api/v1/calls/{}", placed["id"].as_str().unwrap()));
    assert_eq!((&placed["to"], &placed["from"]), (&order["to"], &order["from"]));
    assert_eq!((&placed["record"], &placed["state"]), (&json!(true), &json!("ringing")));
    humantime::parse_rfc3339(placed["created_at"].as_str().unwrap()).unwrap();

    assert_eq!(upstream.get(&path).await.json::<Value>().await.unwrap()["id"], placed["id"]);
    let list: Value = upstream.get("/api/v1/calls").await.json().await.unwrap();
    assert_eq!(list["data"][0]["id"], placed["id"], "the newest comes first");

    reaches(&upstream, &path, "answered").await;
    upstream.hang_up(&path).await;
    reaches(&upstream, &path, "ended").await;
    upstream.hang_up(&path).await;
}

#[tokio::test]
async fn every_invalid_field_is_reported_at_once() {
    let upstream = Upstream::start().await;
    let order = json!({ "to": "5551234567", "record": 1 });
    let answer = upstream.request(Method::POST, "/api/v1/calls").json(&order).send().await.unwrap();
    assert_eq!(
        refused(answer, StatusCode::UNPROCESSABLE_ENTITY).await,
        json!({
            "message": "The given data was invalid.",
            "errors": {
                "to": ["The to field must be an E.164 number, such as +15551234567."],
                "from": ["The from field is required."],
                "record": ["The record field must be true or false."],
            },
        })
    );
}

#[tokio::test]
async fn a_body_that_is_no_json_or_too_large_is_refused() {
    let upstream = Upstream::start().await;
    let post = |kind: &str, body: Vec<u8>| {
        upstream.request(Method::POST, "/api/v1/calls").header("content-type", kind).body(body).send()
    };
    refused(post("application/json", b"{\"to\":".to_vec()).await.unwrap(), StatusCode::BAD_REQUEST).await;
    refused(post("application/json", b"[]".to_vec()).await.unwrap(), StatusCode::BAD_REQUEST).await;
    refused(post("text/plain", b"{}".to_vec()).await.unwrap(), StatusCode::UNSUPPORTED_MEDIA_TYPE).await;
    // The largest body that is read, and then three larger ones: by a byte, by much, and without an announced length.
    refused(post("application/json", vec![b' '; 65_536]).await.unwrap(), StatusCode::BAD_REQUEST).await;
    refused(post("application/json", vec![b' '; 65_537]).await.unwrap(), StatusCode::PAYLOAD_TOO_LARGE).await;
    refused(post("application/json", vec![b' '; 1_000_000]).await.unwrap(), StatusCode::PAYLOAD_TOO_LARGE).await;
    let chunks = stream::iter((0..20).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 10_000]))));
    let request = upstream.request(Method::POST, "/api/v1/calls").header("content-type", "application/json");
    let answer = request.body(reqwest::Body::wrap_stream(chunks)).send().await.unwrap();
    refused(answer, StatusCode::PAYLOAD_TOO_LARGE).await;
}

#[tokio::test]
async fn a_connection_survives_a_413() {
    let upstream = Upstream::start().await;
    let mut socket = TcpStream::connect(upstream.address).await.unwrap();
    let post =
        "POST /api/v1/calls HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500000\r\n\r\n";
    let get = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for bytes in [post.as_bytes(), &[b' '; 500_000], get.as_bytes()] {
        socket.write_all(bytes).await.unwrap();
    }
    let mut answers = String::new();
    timeout(DEADLINE, socket.read_to_string(&mut answers)).await.unwrap().unwrap();
    let statuses: Vec<&str> = answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["413", "200"]);
}

#[tokio::test]
async fn the_list_comes_in_pages() {
    let upstream = Upstream::start().await;
    for _ in 0..4 {
        upstream.place().await;
    }
    let mut seen = Vec::new();
    let mut path = "/api/v1/calls?limit=2".to_owned();
    loop {
        let page: Value = upstream.get(&path).await.json().await.unwrap();
        seen.extend(page["data"].as_array().unwrap().iter().map(|call| call["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_before"].as_str() else { break };
        path = format!("/api/v1/calls?limit=2&before={next}");
    }
    assert_eq!(seen, ["call_5", "call_4", "call_3", "call_2", "call_1"]);
    let body = refused(upstream.get("/api/v1/calls?limit=0&before=x").await, StatusCode::UNPROCESSABLE_ENTITY).await;
    assert!(body["errors"]["limit"].is_array() && body["errors"]["before"].is_array(), "{body}");
}

#[tokio::test]
async fn unknown_paths_and_methods_get_json() {
    let upstream = Upstream::start().await;
    let missing =
        ["calls/call_99", "calls/7", "calls/x/stream", "calls/call_99/events", "calls/", "/calls", "nothing", ""];
    let missing = missing.map(|path| format!("/api/v1/{path}"));
    for path in missing.iter().map(String::as_str).chain(["/", "/healthz/", "/api/v1", "/api/v2/calls"]) {
        refused(upstream.get(path).await, StatusCode::NOT_FOUND).await;
    }
    for (method, path, allow) in [
        (Method::PUT, "/api/v1/calls", "GET, HEAD, POST"),
        (Method::POST, "/api/v1/calls/call_1", "GET, HEAD, DELETE"),
        (Method::GET, "/api/v1/recordings", "POST"),
        (Method::DELETE, "/healthz", "GET, HEAD"),
    ] {
        let answer = upstream.request(method, path).send().await.unwrap();
        assert_eq!(answer.headers()["allow"], allow);
        refused(answer, StatusCode::METHOD_NOT_ALLOWED).await;
    }
}

#[tokio::test]
async fn a_head_has_the_headers_of_a_get() {
    let upstream = Upstream::start().await;
    for path in
        ["/healthz", "/api/v1/calls", "/api/v1/recordings/1000", "/api/v1/nothing", "/api/v1/calls/call_1/stream"]
    {
        let get = upstream.get(path).await;
        let head = upstream.request(Method::HEAD, path).send().await.unwrap();
        assert_eq!(head.status(), get.status(), "{path}");
        for name in ["content-type", "content-length", "upgrade"] {
            assert_eq!(head.headers().get(name), get.headers().get(name), "{path}: {name}");
        }
        assert!(head.bytes().await.unwrap().is_empty(), "{path}");
    }
    let head = upstream.request(Method::HEAD, "/api/v1/events").send().await.unwrap();
    assert_eq!(head.headers()["content-type"], "text/event-stream");
    assert!(timeout(DEADLINE, head.bytes()).await.unwrap().unwrap().is_empty());
}

#[tokio::test]
async fn the_identity_that_a_gateway_sends_is_shown() {
    let upstream = Upstream::start().await;
    let request = upstream.request(Method::GET, "/api/v1/whoami").header("x-callgate-token-id", "abc");
    let shown = request.header("x-callgate-plan", "standard").bearer_auth("secret").send().await.unwrap();
    assert_eq!(
        shown.json::<Value>().await.unwrap(),
        json!({
            "headers": { "x-callgate-plan": "standard", "x-callgate-token-id": "abc" },
            "authorization_received": true,
        })
    );
    let shown: Value = upstream.get("/api/v1/whoami").await.json().await.unwrap();
    assert_eq!(shown, json!({ "headers": {}, "authorization_received": false }));
}
