//! Upgrades in a row, under load: no request fails, no call ends, and limits stay exact.
//!
//! There are a few, and twenty when `CALLGATE_SOAK_MINUTES` is set.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::support::calls::{call, switchboard};
use crate::support::client::{ask_until, http1, http2};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::redis::RedisServer;
use crate::support::upstream::Upstream;

const UPGRADES: usize = 4;
const TIGHT_LIMIT: u32 = 60;

async fn rest() -> (Upstream, String) {
    let (upstream, calls) = (Upstream::start().await, switchboard().await);
    let rest = format!(
        "plans:\n  standard: {{ limits: {{ minute: 1000000/1m }} }}\n  \
         tight: {{ limits: {{ hour: {TIGHT_LIMIT}/1h }} }}\ndefault_plan: standard\n\
         routes:\n  - {{ path: /call, upstream: calls }}\n  - {{ path: \"/{{*rest}}\", upstream: up }}\n\
         upstreams:\n  up: {{ endpoints: [\"http://{}\"] }}\n  calls: {{ endpoints: [\"http://{calls}\"] }}\n",
        upstream.address
    );
    (upstream, rest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_with_the_memory_store() {
    let (upstream, rest) = rest().await;
    upgrade(&upstream, Site::new(&format!("store: memory\ntokens: {{ file: tokens.yaml }}\n{rest}"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_with_redis() {
    let (upstream, rest) = rest().await;
    let redis = RedisServer::start();
    upgrade(&upstream, Site::new(&format!("store: {{ redis: {{ url: \"{}\", deadline: 2s }} }}\n{rest}", redis.url())))
        .await;
}

/// Requests on kept connections and on new ones until `over`; returns how many there were.
async fn ask_on(
    make: fn(&Gateway) -> reqwest::Client,
    first: Arc<Gateway>,
    token: Token,
    over: Arc<AtomicBool>,
) -> u32 {
    let mut asked = 0;
    let mut client = make(&first);
    while !over.load(Ordering::Relaxed) {
        if asked % 5 == 4 {
            client = make(&first);
        }
        let request = match asked % 3 {
            0 => client.post(first.url("/echo")).body(vec![b'x'; 50_000]),
            1 => client.get(first.url("/slow/30")),
            _ => client.get(first.url("/echo")),
        };
        let response = request.bearer_auth(&token.secret).send().await.unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(response.status(), 200);
        response.bytes().await.unwrap();
        asked += 1;
    }
    asked
}

async fn upgrade(upstream: &Upstream, site: Arc<Site>) {
    let (token, tight) = (site.token(&[]), site.token_with(&[], &["--plan", "tight"]));
    let first = Arc::new(site.take_over().unwrap());
    // The next ones listen where it does.
    site.replace("https: \"127.0.0.1:0\"", &format!("https: \"{}\"", first.https));
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..2 {
        for make in [http1 as fn(&Gateway) -> reqwest::Client, http2] {
            clients.spawn(ask_on(make, first.clone(), token.clone(), over.clone()));
        }
    }
    let mut limited = JoinSet::new();
    for client in [http1(&first), http2(&first)] {
        let pause = Duration::from_millis(20);
        limited.spawn(ask_until(client, first.clone(), tight.clone(), over.clone(), pause));
    }
    let upgrades = if std::env::var("CALLGATE_SOAK_MINUTES").is_ok() { 20 } else { UPGRADES };
    let (mut processes, mut open) = (vec![first.clone()], Vec::new());
    for _ in 0..upgrades {
        open.push(call(&first, &token, "/call").await.unwrap());
        let next = tokio::task::spawn_blocking({
            let site = site.clone();
            move || site.take_over()
        });
        processes.push(Arc::new(next.await.unwrap().unwrap()));
        let before = upstream.seen().len();
        eventually("requests behind the upgrade", async || (upstream.seen().len() > before + 20).then_some(())).await;
        assert!(clients.try_join_next().is_none() && limited.try_join_next().is_none(), "a client has ended");
    }
    let last = processes.last().unwrap().clone();
    eventually("the limit to be used up", async || {
        last.log().iter().any(|line| line["code"] == "rate_limited").then_some(())
    })
    .await;
    drop(last);
    over.store(true, Ordering::Relaxed);
    let asked_on: Vec<u32> = clients.join_all().await;
    let (admitted, asked): (Vec<u32>, Vec<u32>) = limited.join_all().await.into_iter().unzip();
    let (admitted, asked): (u32, u32) = (admitted.iter().sum(), asked.iter().sum());
    eprintln!("{upgrades} upgrades; requests: {asked_on:?}");
    assert!(asked > TIGHT_LIMIT, "{asked}");
    assert_eq!(admitted, TIGHT_LIMIT);
    for call in &mut open {
        call.write_all(b"\x89\x80abcd").await.unwrap();
        let closed = tokio::time::timeout(Duration::from_millis(50), call.read_u8()).await;
        assert!(closed.is_err(), "a call has ended: {closed:?}");
    }
    // Each process but the last one ends with its call.
    drop((open, first));
    let last = processes.pop().unwrap();
    for process in processes {
        let process = Arc::into_inner(process);
        let mut process = process.expect("all clients have ended");
        assert_eq!(process.wait().await.code(), Some(0));
        assert!(process.log().iter().any(|line| line["message"] == "ended" && line["cut"] == 0));
    }
    let (client, token) = (http1(&last), &token);
    eventually("the last one to serve", async || {
        let response = client.get(last.url("/echo")).bearer_auth(&token.secret).send().await.ok()?;
        (response.status() == 200).then_some(())
    })
    .await;
}
