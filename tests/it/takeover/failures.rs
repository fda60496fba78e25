//! Takeovers that fail: the running process goes on, and one that dies leaves its sockets to the new one.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::client::{get, http1};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Site};
use crate::support::upstream::Upstream;

async fn site() -> (Upstream, Arc<Site>) {
    let upstream = Upstream::start().await;
    let site = Site::in_memory(upstream.address, "  - { path: \"/{*rest}\", upstream: up }");
    (upstream, site)
}

fn message(stream: &mut UnixStream, text: &str) {
    stream.write_all(&(text.len() as u32).to_le_bytes()).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
}

fn answer(stream: &mut UnixStream) -> String {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut text = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut text).unwrap();
    // Logs are no text.
    String::from_utf8_lossy(&text).into_owned()
}

/// Waits until so many takeovers have failed.
async fn goes_on(old: &Gateway, failed: usize) {
    const LINE: &str = "a takeover failed, and this process goes on as before";
    eventually("the old process to go on", async || {
        (old.log().iter().filter(|line| line["message"] == LINE).count() == failed).then_some(())
    })
    .await;
}

const HELLO: &str = r#"{"protocol":1,"version":"0","process":1,"pid":1,"role":"Successor"}"#;

#[tokio::test]
async fn a_new_process_that_fails_leaves_the_old_one() {
    let (_upstream, site) = site().await;
    let token = site.token(&[]);
    let old = site.take_over().unwrap();
    let socket = site.path("takeover.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let good = std::fs::read_to_string(site.config()).unwrap();
    // A broken configuration, and an address that can't be bound.
    for broken in [good.replace("upstream: up", "upstream: nowhere"), good.replacen("127.0.0.1:0", "192.0.2.1:1", 1)] {
        std::fs::write(site.config(), broken).unwrap();
        assert!(site.take_over().is_err());
    }
    // The second one had asked for the sockets.
    goes_on(&old, 1).await;
    // New processes that die: after each step.
    for steps in 0..=3 {
        let mut new = UnixStream::connect(&socket).unwrap();
        if steps > 0 {
            message(&mut new, HELLO);
            assert!(answer(&mut new).contains("listen.https"));
        }
        if steps > 1 {
            // The byte that comes with the sockets.
            new.read_exact(&mut [0]).unwrap();
            message(&mut new, r#"{"takes_state":true}"#);
            assert!(answer(&mut new).contains("calls"));
        }
        if steps > 2 {
            while !answer(&mut new).is_empty() {}
            message(&mut new, "null");
            assert_eq!(answer(&mut new), r#""GoOn""#);
        }
        drop(new);
        goes_on(&old, steps + 1).await;
        assert_eq!(get(&http1(&old), &old, "/echo", &token).await.status(), 200, "{steps}");
    }
    let mut foreign = UnixStream::connect(&socket).unwrap();
    message(&mut foreign, &HELLO.replace("1,\"version", "2,\"version"));
    assert!(answer(&mut foreign).contains("Refused"));
    assert!(!old.log().iter().any(|line| line["message"] == "draining"));
    // And then one succeeds.
    std::fs::write(site.config(), good).unwrap();
    site.replace("https: \"127.0.0.1:0\"", &format!("https: \"{}\"", old.https));
    let new = eventually("a takeover", async || site.take_over().ok()).await;
    assert_eq!(new.https, old.https);
    assert_eq!(get(&http1(&new), &new, "/echo", &token).await.status(), 200);
}

/// An old process that dies at each step: here it is played, with a socket of its own.
#[tokio::test]
async fn an_old_process_that_dies_in_the_middle_leaves_its_sockets() {
    let (_upstream, site) = site().await;
    let token = site.token(&[]);
    for step in 0..3 {
        let path = site.path("takeover.sock");
        let _ = std::fs::remove_file(&path);
        let dying = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let old = std::thread::spawn(move || {
            let (mut new, _) = dying.accept().unwrap();
            let _hello = answer(&mut new);
            if step == 0 {
                return;
            }
            message(&mut new, r#"{"Sockets":{"sockets":[],"clock":null}}"#);
            let _ready = answer(&mut new);
            if step == 2 {
                message(&mut new, r#"{"calls":{"7":{"abc":1}}}"#);
            }
        });
        let new = site.take_over().unwrap();
        old.join().unwrap();
        assert_eq!(get(&http1(&new), &new, "/echo", &token).await.status(), 200, "{step}");
    }
}

/// One that gives up waiting closes the connection as one that dies, but goes on accepting: there must not be two.
#[tokio::test]
async fn an_old_process_that_gives_up_keeps_its_sockets() {
    let (_upstream, site) = site().await;
    let path = site.path("takeover.sock");
    let patient = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let old = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut new, _) = patient.accept().unwrap();
            let _hello = answer(&mut new);
            message(&mut new, r#"{"Sockets":{"sockets":[],"clock":null}}"#);
        }
    });
    let refused = site.take_over().err().expect("two processes would accept");
    assert!(refused.contains("goes on as before"), "{refused}");
    old.join().unwrap();
}

#[tokio::test]
async fn killed_before_or_after_it_leaves_the_way_free() {
    let (_upstream, site) = site().await;
    let token = site.token(&[]);
    let mut old = site.take_over().unwrap();
    site.replace("https: \"127.0.0.1:0\"", &format!("https: \"{}\"", old.https));
    old.signal(Signal::KILL);
    old.wait().await;
    // Its socket is still there, and nobody answers.
    let second = site.take_over().unwrap();
    let third = site.take_over().unwrap();
    second.signal(Signal::KILL);
    assert_eq!(get(&http1(&third), &third, "/echo", &token).await.status(), 200);
}

/// The old process gets SIGKILL at some moment of the takeover, while clients ask: whatever the new one has by then, it serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_it_leaves_the_new_one() {
    let (_upstream, site) = site().await;
    // The requests in between soon use up the minute of their token. The last request has a token of its own.
    let (token, asking_token) = (site.token(&[]), site.token(&[]));
    let mut old = site.take_over().unwrap();
    site.replace("https: \"127.0.0.1:0\"", &format!("https: \"{}\"", old.https));
    // A takeover on an idle machine takes some 50 ms from the start of the process on.
    for delay in [0, 10, 20, 30, 40, 60, 80, 120].map(Duration::from_millis) {
        let over = Arc::new(AtomicBool::new(false));
        let asking = {
            let (client, url, token, over) = (http1(&old), old.url("/echo"), asking_token.secret.clone(), over.clone());
            tokio::spawn(async move {
                // Requests break off when their process is killed.
                while !over.load(Ordering::Relaxed) {
                    let _ = client.get(&url).bearer_auth(&token).send().await;
                }
            })
        };
        let starting = tokio::task::spawn_blocking({
            let site = site.clone();
            move || site.take_over()
        });
        tokio::time::sleep(delay).await;
        old.signal(Signal::KILL);
        old.wait().await;
        let new = starting.await.unwrap().unwrap_or_else(|said| panic!("after {delay:?}: {said}"));
        assert_eq!(get(&http1(&new), &new, "/echo", &token).await.status(), 200, "after {delay:?}");
        over.store(true, Ordering::Relaxed);
        asking.await.unwrap();
        old = new;
    }
}
