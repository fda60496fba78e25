//! Calls have a deadline of their own in a drain, and are closed one after the other.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use rustix::process::Signal;

use super::stage::Stage;
use crate::support::client::{get, header, http1, http2};
use crate::support::eventually;
use crate::support::upstream::Upstream;

#[tokio::test]
async fn closes_of_calls_are_spread() {
    let count = if std::env::var("CALLGATE_SOAK_MINUTES").is_ok() { 500 } else { 50 };
    let spread = Duration::from_secs(3);
    let mut stage = Stage::start("{ timeout: 1s, calls: 1s, spread: 3s }").await;
    let calls = join_all((0..count).map(|_| stage.call())).await;
    let signalled = Instant::now();
    stage.gateway.signal(Signal::TERM);
    let ends = join_all(calls.into_iter().map(|call| tokio::spawn(call.closed()))).await;
    let mut at: Vec<Duration> = Vec::new();
    for end in ends {
        let (code, when) = end.unwrap();
        assert_eq!(code, 1012);
        at.push(when - signalled);
    }
    assert_eq!(stage.closes(count).await, vec![1001; count]);
    at.sort_unstable();
    // drain.calls has passed before the first; a slow machine may only delay them.
    assert!(at[0] >= Duration::from_secs(1), "{at:?}");
    assert!(at[count - 1] < Duration::from_secs(1) + spread + Duration::from_secs(10), "{at:?}");
    assert!(at[count - 1] - at[0] > spread / 2, "{at:?}");
    for (index, first) in at.iter().enumerate() {
        let within = at[index..].iter().take_while(|end| **end - *first < spread / 10).count();
        assert!(within <= count / 2, "{within} calls were closed at {first:?}: {at:?}");
    }
    let end = stage.end().await;
    assert_eq!((&end["closed_calls"], &end["cut"]), (&count.into(), &0.into()));
}

#[tokio::test]
async fn requests_are_cut_while_calls_and_streams_go_on() {
    let mut stage = Stage::start("{ timeout: 2s, calls: 5m }").await;
    let mut call = stage.call().await;
    let clients = [http1(&stage.gateway), http2(&stage.gateway)];
    let (mut feeds, mut requests) = (Vec::new(), Vec::new());
    for client in &clients {
        let mut feed = get(client, &stage.gateway, "/feed", &stage.token).await;
        feed.chunk().await.unwrap().unwrap();
        feeds.push(feed);
        // An answer that lasts and is no call, and a request that has none.
        let mut endless = get(client, &stage.gateway, "/events", &stage.token).await;
        endless.chunk().await.unwrap().unwrap();
        requests.push(tokio::spawn(async move {
            while endless.chunk().await?.is_some() {}
            Ok(())
        }));
        let pending = client.get(stage.gateway.url("/slow/600000")).bearer_auth(&stage.token.secret);
        requests.push(tokio::spawn(async move { pending.send().await.map(drop) }));
    }
    eventually("all requests to be upstream", async || (stage.upstream.seen().len() == 6).then_some(())).await;
    stage.drain().await;
    assert_eq!(stage.gateway.metric("callgate_draining").await, Some(1.0));
    for request in requests {
        assert!(request.await.unwrap().is_err(), "it is cut, and looks so");
    }
    stage.says("4 requests were cut").await;
    // The HTTP/1.1 client has a connection for each, the HTTP/2 client has one.
    eventually("the metrics to show what is left", async || (stage.left().await == [3.0, 0.0, 3.0]).then_some(()))
        .await;
    for signal in [Signal::USR1, Signal::USR2, Signal::HUP] {
        stage.gateway.signal(signal);
    }
    for feed in &mut feeds {
        for _ in 0..10 {
            assert!(feed.chunk().await.unwrap().is_some());
        }
    }
    call.echoes().await;
    eventually("the cut streams to end upstream", async || (stage.upstream.open_streams() == 2).then_some(())).await;
    drop(feeds);
    call.0.close(None).await.unwrap();
    while call.0.next().await.is_some() {}
    let end = stage.end().await;
    assert_eq!((&end["closed_calls"], &end["cut"]), (&0.into(), &4.into()));
}

#[tokio::test]
async fn a_call_that_ends_by_itself_ends_the_drain() {
    let mut stage = Stage::start("{ timeout: 5m, calls: 5m }").await;
    let mut call = stage.call().await;
    stage.drain().await;
    call.echoes().await;
    call.0.close(None).await.unwrap();
    while call.0.next().await.is_some() {}
    assert_eq!(stage.end().await["closed_calls"], 0);
    assert_eq!(stage.gateway.access("/call", 1).await[0]["ended_by"], "client");
}

#[tokio::test]
async fn streams_of_events_are_closed_with_the_calls() {
    let mut stage = Stage::start("{ timeout: 5m, calls: 1s, spread: 1s }").await;
    let clients = [http1(&stage.gateway), http2(&stage.gateway)];
    let mut feeds = Vec::new();
    for client in &clients {
        let mut feed = get(client, &stage.gateway, "/feed", &stage.token).await;
        feed.chunk().await.unwrap().unwrap();
        feeds.push(feed);
    }
    stage.drain().await;
    for mut feed in feeds {
        let broken = async {
            loop {
                match feed.chunk().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return false,
                    Err(_) => return true,
                }
            }
        };
        assert!(broken.await, "a stream that is not whole must not look so");
    }
    assert_eq!(stage.end().await["closed_calls"], 2);
    for line in stage.gateway.access("/feed", 2).await {
        assert_eq!((&line["ended_by"], &line["error"]), (&"gateway".into(), &"the instance ended".into()));
    }
}

#[tokio::test]
async fn grpc_clients_are_told_to_come_back() {
    let drain = "{ timeout: 1s, calls: 3s, spread: 0s }";
    let mut stage = Stage::before(Upstream::http2(100).await, ", protocol: http2", drain).await;
    let client = http2(&stage.gateway);
    let ask = |path: &str| {
        let request = client.post(stage.gateway.url(path)).bearer_auth(&stage.token.secret);
        tokio::spawn(request.header("content-type", "application/grpc").body("question").send())
    };
    let (pending, streaming) = (ask("/slow/600000"), ask("/events"));
    let mut streaming = streaming.await.unwrap().unwrap();
    streaming.chunk().await.unwrap().unwrap();
    eventually("both requests to be upstream", async || (stage.upstream.seen().len() == 2).then_some(())).await;
    stage.drain().await;
    // Neither is cut with the requests.
    let pending = pending.await.unwrap().unwrap();
    assert_eq!(
        (header(&pending, "grpc-status"), header(&pending, "grpc-message")),
        ("14", "The gateway restarts. Try again.")
    );
    // Trailers with the status end it well.
    while streaming.chunk().await.unwrap().is_some() {}
    assert_eq!(stage.end().await["closed_calls"], 2);
    assert_eq!(stage.gateway.access("/slow/600000", 1).await[0]["code"], "restarting");
    assert_eq!(stage.gateway.access("/events", 1).await[0]["error"], "the instance ended");
}
