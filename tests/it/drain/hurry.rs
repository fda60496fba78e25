//! A second signal hurries a drain, and a third ends the process at once.

use rustix::process::Signal;

use super::stage::Stage;
use crate::support::client::{get, http1};
use crate::support::eventually;

#[tokio::test]
async fn a_second_signal_closes_calls_and_cuts_requests() {
    // In the delay, and while requests and calls have their time.
    for delay in ["5m", "0s"] {
        let drain = format!("{{ delay: {delay}, timeout: 5m, calls: 5m, spread: 5m }}");
        let mut stage = Stage::start(&drain).await;
        let (first, second) = (stage.call().await, stage.call().await);
        let mut endless = get(&http1(&stage.gateway), &stage.gateway, "/events", &stage.token).await;
        endless.chunk().await.unwrap().unwrap();
        if delay == "0s" {
            stage.drain().await;
        } else {
            stage.gateway.signal(Signal::TERM);
            stage.says("draining").await;
        }
        stage.gateway.signal(Signal::INT);
        let (first, second) = tokio::join!(first.closed(), second.closed());
        assert_eq!((first.0, second.0), (1012, 1012));
        while let Ok(Some(_)) = endless.chunk().await {}
        let end = stage.end().await;
        assert_eq!((&end["closed_calls"], &end["cut"]), (&2.into(), &1.into()));
        assert_eq!(stage.closes(2).await, [1001, 1001]);
    }
}

#[tokio::test]
async fn a_third_signal_ends_the_process_at_once() {
    let mut stage = Stage::start("{ timeout: 5m }").await;
    let mut endless = get(&http1(&stage.gateway), &stage.gateway, "/events", &stage.token).await;
    endless.chunk().await.unwrap().unwrap();
    stage.drain().await;
    stage.gateway.signal(Signal::TERM);
    stage.says("a second signal hurries the drain").await;
    stage.gateway.signal(Signal::TERM);
    assert_eq!(stage.gateway.wait().await.code(), Some(1));
    eventually("the reason", async || stage.gateway.output().contains("stopped at once").then_some(())).await;
}
