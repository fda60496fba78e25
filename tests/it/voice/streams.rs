//! WebSocket streams of calls, and feeds of events.

use super::*;

#[tokio::test]
async fn a_stream_answers_the_call_and_echoes_its_messages() {
    let upstream = Upstream::start().await;
    let call = upstream.place().await;
    let mut socket = upstream.open_stream(&call).await.unwrap();
    let state = upstream.get(&call).await.json::<Value>().await.unwrap()["state"].clone();
    assert_eq!(state, "answered");

    for length in [0, 1, 160, 65_536, 1_048_576] {
        let audio = Message::binary(vec![0x5a; length]);
        socket.send(audio.clone()).await.unwrap();
        assert_eq!(timeout(DEADLINE, socket.next()).await.unwrap().unwrap().unwrap(), audio);
    }
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    socket.send(Message::Ping(Bytes::from_static(b"there?"))).await.unwrap();
    assert_eq!(timeout(DEADLINE, socket.next()).await.unwrap().unwrap().unwrap(), Message::Pong("there?".into()));

    let bye = CloseFrame { code: CloseCode::Normal, reason: "bye".into() };
    socket.close(Some(bye.clone())).await.unwrap();
    assert_eq!(timeout(DEADLINE, socket.next()).await.unwrap().unwrap().unwrap(), Message::Close(Some(bye)));
    assert!(timeout(DEADLINE, socket.next()).await.unwrap().is_none(), "then the connection ends");
}

#[tokio::test]
async fn a_stream_ends_with_its_call_and_with_a_message_too_large() {
    let upstream = Upstream::start().await;
    let call = upstream.place().await;
    let mut first = upstream.open_stream(&call).await.unwrap();
    let mut second = upstream.open_stream(&call).await.unwrap();
    // The client may see its connection closed while it is still sending.
    let _ = first.send(Message::binary(vec![0; 1_048_577])).await;
    assert_eq!(close_code(&mut first).await, CloseCode::Size);
    upstream.hang_up(&call).await;
    assert_eq!(close_code(&mut second).await, CloseCode::Normal);
}

#[tokio::test]
async fn an_invalid_handshake_gets_an_http_error() {
    let upstream = Upstream::start().await;
    let call = upstream.place().await;
    let path = format!("{call}/stream");
    let answer = upstream.get(&path).await;
    assert_eq!(answer.headers()["upgrade"], "websocket");
    refused(answer, StatusCode::UPGRADE_REQUIRED).await;

    let handshake = |version: &str, key: &str| {
        let request = upstream.request(Method::GET, &path).header("connection", "upgrade");
        let request = request.header("upgrade", "websocket").header("sec-websocket-version", version);
        request.header("sec-websocket-key", key).send()
    };
    let answer = handshake("8", "dGhlIHNhbXBsZSBub25jZQ==").await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-version"], "13");
    refused(answer, StatusCode::UPGRADE_REQUIRED).await;
    refused(handshake("13", "short").await.unwrap(), StatusCode::BAD_REQUEST).await;

    let status_of = |outcome: Result<_, tungstenite::Error>| match outcome {
        Err(tungstenite::Error::Http(answer)) => answer.status().as_u16(),
        other => panic!("expected an HTTP answer, got {:?}", other.map(|_: WebSocketStream<TcpStream>| "a stream")),
    };
    assert_eq!(status_of(upstream.open_stream("/api/v1/calls/call_99").await), 404);
    upstream.hang_up(&call).await;
    assert_eq!(status_of(upstream.open_stream(&call).await), 409);
}

#[tokio::test]
async fn a_feed_reports_a_call_from_ringing_to_ended() {
    let upstream = Upstream::start().await;
    let start = Instant::now();
    let call = upstream.place().await;
    let path = format!("{call}/events");
    let mut feed = upstream.feed(&path, None).await;
    assert!(feed.frame().await.unwrap().starts_with(':'), "a comment opens the feed");
    let first = feed.event().await.unwrap();
    assert_eq!(first.name, "call.ringing");
    assert_eq!(first.data["call_id"], call.rsplit('/').next().unwrap());

    assert_eq!(feed.event().await.unwrap().name, "call.answered");
    for _ in 0..2 {
        let event = feed.event().await.unwrap();
        assert_eq!(event.name, "call.audio_level");
        assert!((-50.0..=-10.0).contains(&event.data["level_dbfs"].as_f64().unwrap()), "{event:?}");
    }
    // One each second since the answer.
    assert!(start.elapsed() > Duration::from_millis(1_900), "{:?}", start.elapsed());

    upstream.hang_up(&call).await;
    let mut last = feed.event().await.unwrap();
    while last.name == "call.audio_level" {
        last = feed.event().await.unwrap();
    }
    assert_eq!((last.name.as_str(), &last.data["state"]), ("call.ended", &json!("ended")));
    assert!(feed.frame().await.is_none(), "the feed ends with the call");

    // A client that comes back goes on behind what it saw, and is told to stay away when it saw all.
    let mut feed = upstream.feed(&path, Some(&first.id)).await;
    assert_eq!(feed.event().await.unwrap().name, "call.answered");
    let request = upstream.request(Method::GET, &path).header("last-event-id", &last.id);
    assert_eq!(request.send().await.unwrap().status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn the_feed_of_all_calls_resumes_after_the_last_event() {
    let upstream = Upstream::start().await;
    let mut feed = upstream.feed("/api/v1/events", None).await;
    let first = feed.event().await.unwrap();
    let placed: Vec<String> = vec![upstream.place().await, upstream.place().await];
    let ringing = |events: &[Event]| -> Vec<String> {
        let ringing = events.iter().filter(|event| event.name == "call.ringing");
        ringing.map(|event| format!("/api/v1/calls/{}", event.data["call_id"].as_str().unwrap())).collect()
    };
    for mut feed in [feed, upstream.feed("/api/v1/events", Some(&first.id)).await] {
        let mut events = Vec::new();
        while ringing(&events).len() < 2 {
            events.push(feed.event().await.unwrap());
        }
        assert_eq!(ringing(&events), placed);
        let ids: Vec<u64> = events.iter().map(|event| event.id.parse().unwrap()).collect();
        assert!(ids.windows(2).all(|pair| pair[1] == pair[0] + 1), "no event is left out: {ids:?}");
    }
    // An id that this server never gave is no place to go on from.
    let mut feed = upstream.feed("/api/v1/events", Some("999999")).await;
    feed.event().await.unwrap();
}
