//! Two instances on one Redis: what is done to a token on one of them, or from a command line, ends its calls on both.

use std::process::{Command, Stdio};
use std::sync::Arc;

use super::stage::{breaks_off, stream};
use super::*;
use crate::support::WAIT_TIMEOUT;
use crate::support::client::{http1, http2};
use crate::support::gateway::{Gateway, Token};
use crate::support::redis::RedisServer;

fn store(redis: &RedisServer) -> String {
    format!("store: {{ redis: {{ url: \"{}\", deadline: 10s }} }}", redis.url())
}

/// Opens calls and streams on these instances, and returns what ends when all of them have ended, as they should.
async fn everywhere(instances: &[&Gateway], token: &Token) -> impl Future<Output = ()> + use<> {
    let mut calls = Vec::new();
    let mut streams = Vec::new();
    for gateway in instances {
        let mut quiet = Caller::open(gateway, "/call", token).await;
        quiet.quiet().await;
        calls.extend([quiet, Caller::open(gateway, "/call", token).await]);
        for client in [http1(gateway), http2(gateway)] {
            streams.push(stream(&client, gateway, token).await);
        }
    }
    async move {
        let calls = futures_util::future::join_all(calls.into_iter().map(Caller::close_reason));
        let streams = futures_util::future::join_all(streams.into_iter().map(breaks_off));
        let (reported, broken) = tokio::join!(calls, streams);
        assert!(
            reported.iter().flatten().all(|(code, _)| *code == NO_LONGER.0) && reported.iter().all(Option::is_some)
        );
        assert!(broken.into_iter().all(|broken| broken));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_announced_to_every_instance_and_ends_calls() {
    let (redis, stage) = (RedisServer::start(), Stage::start().await);
    let (site, instances) = sites(&redis, &stage);
    let (first, second) = (instances.serve(), instances.serve());
    for _ in 0..3 {
        end_without_sweep(&redis, &site, &[&first, &second], &["token", "revoke", "--yes", "ID"]).await;
    }
}

/// Ends calls by a command while the sweep of the instances, which compares versions by HGET, finds nothing: the announcement
/// of the change ends them.
async fn end_without_sweep(redis: &RedisServer, site: &Site, instances: &[&Gateway], command: &[&str]) {
    let token = site.token(&["calls:stream"]);
    let ended = everywhere(instances, &token).await;
    redis.say::<()>(&["ACL", "SETUSER", "instances", "-hget"]);
    end_by(site, command, &token, ended).await;
    redis.say::<()>(&["ACL", "SETUSER", "instances", "+hget"]);
}

/// Runs a command with the id of a token in place of `ID`, and waits until the calls have ended.
async fn end_by(site: &Site, command: &[&str], token: &Token, ended: impl Future<Output = ()> + Send + 'static) {
    // The clients read all the while: a Close frame needs room on their connections.
    let ended = tokio::spawn(ended);
    run(site, &command.iter().map(|word| if *word == "ID" { &*token.id } else { *word }).collect::<Vec<_>>());
    tokio::time::timeout(WAIT_TIMEOUT, ended).await.expect("the calls end in time").unwrap();
}

/// The sites of commands and of instances, which are different users of Redis.
fn sites(redis: &RedisServer, stage: &Stage) -> (Arc<Site>, Arc<Site>) {
    redis.say::<()>(&["ACL", "SETUSER", "instances", "on", ">secret", "~*", "&*", "+@all"]);
    let url = redis.url().replace("redis://", "redis://instances:secret@");
    let instances = format!("store: {{ redis: {{ url: \"{url}\", deadline: 10s }} }}");
    (stage.site(&store(redis), "", ""), stage.site(&instances, "", ""))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_removal_of_a_right_ends_calls_on_every_instance() {
    let (redis, stage) = (RedisServer::start(), Stage::start().await);
    let (site, instances) = sites(&redis, &stage);
    let (first, second) = (instances.serve(), instances.serve());
    for command in [
        &["token", "disable", "ID"][..],
        &["token", "rotate", "ID", "--grace", "0", "--yes"],
        &["token", "revoke", "--yes", "--account", "acme"],
    ] {
        end_without_sweep(&redis, &site, &[&first, &second], command).await;
    }
    let token = site.token(&["calls:stream"]);
    let ended = everywhere(&[&first, &second], &token).await;
    end_by(&site, &["token", "update", "ID", "--expires", "1s"], &token, ended).await;
    // Removing a permission ends the calls of the route that requires it, and no others.
    let token = site.token(&["calls:stream"]);
    let mut free = Caller::open(&second, "/free", &token).await;
    let guarded = [Caller::open(&first, "/call", &token).await, Caller::open(&second, "/call", &token).await];
    run(&site, &["token", "update", &token.id, "--permission", "calls:read"]);
    for call in guarded {
        assert_eq!(call.close_reason().await.unwrap().0, NO_LONGER.0);
    }
    free.quiet().await;
    assert_eq!(second.metric("callgate_calls_open{route=\"/free\"}").await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_announcement_delays_a_revocation_by_seconds() {
    let (redis, stage) = (RedisServer::start(), Stage::start().await);
    // No connection may publish or subscribe.
    redis.say::<()>(&["ACL", "SETUSER", "default", "resetchannels"]);
    let site = stage.site(&store(&redis), "", "");
    let gateway = site.serve();
    let token = site.token(&["calls:stream"]);
    let ended = everywhere(&[&gateway], &token).await;
    end_by(&site, &["token", "revoke", "--yes", "ID"], &token, ended).await;
    assert!(gateway.output().contains("reach open calls some seconds later"), "{}", gateway.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_resubscribes_checks_its_calls_at_once() {
    let (redis, stage) = (RedisServer::start(), Stage::start().await);
    let site = stage.site(&store(&redis), "", "");
    let gateway = site.serve();
    for _ in 0..3 {
        let token = site.token(&["calls:stream"]);
        let ended = everywhere(&[&gateway], &token).await;
        redis.say::<()>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        end_by(&site, &["token", "revoke", "--yes", "ID"], &token, ended).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_ends_no_call_and_expiry_does() {
    let (mut redis, stage) = (RedisServer::start(), Stage::start().await);
    let site = stage.site(&store(&redis), "", "");
    let gateway = site.serve();
    let (short, long) = (site.token_with(&["calls:stream"], &["--expires", "4s"]), site.token(&["calls:stream"]));
    let ended = everywhere(&[&gateway], &short).await;
    let mut lasting = Caller::open(&gateway, "/call", &long).await;
    redis.kill();
    ended.await;
    lasting.quiet().await;
    assert_eq!(gateway.metric("callgate_calls_open{route=\"/call\"}").await, Some(1.0));
    // Empty again, it knows the token no longer.
    redis.restart();
    assert_eq!(lasting.close_reason().await.unwrap().0, NO_LONGER.0);
    let last = gateway.access("/call", 3).await.pop().unwrap();
    assert_eq!(last["error"], "the token was replaced or deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_client_gets_the_close_frame_too() {
    let (redis, stage) = (RedisServer::start(), Stage::start().await);
    let site = stage.site(&store(&redis), "", "");
    let gateway = site.serve();
    let token = site.token(&["calls:stream"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/foreign/listen.py");
    let url = format!("wss://localhost:{}/call", gateway.https.port());
    let mut command = Command::new("/usr/bin/python3");
    command.arg(script).arg(url).arg(site.path("cert.pem")).arg(&token.secret);
    let client = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    crate::support::eventually("the call to be open", async || {
        (gateway.metric("callgate_calls_open{route=\"/call\"}").await == Some(1.0)).then_some(())
    })
    .await;
    run(&site, &["token", "revoke", "--yes", &token.id]);
    let output = tokio::task::spawn_blocking(|| client.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.trim(), format!("{} {}", NO_LONGER.0, NO_LONGER.1), "{errors}");
}
