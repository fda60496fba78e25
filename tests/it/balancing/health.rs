//! Active health checks: unhealthy endpoints leave and return, and clients don't notice.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;

use rustix::process::{Pid, Signal, kill_process};

use super::stage::{Service, Stage};
use crate::support::eventually;

const HEALTH: &str = ", health: { path: /healthz, interval: 100ms, timeout: 10s, healthy: 2, unhealthy: 2 }";

#[tokio::test(flavor = "multi_thread")]
async fn an_unhealthy_endpoint_gets_no_requests_until_it_recovers() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let stage = Stage::before(&[&a, &b], HEALTH);
    a.script.health.store(503, Ordering::SeqCst);
    eventually("a to be down", async || (stage.state(0).await == "down").then_some(())).await;
    assert_eq!(stage.metric("endpoint_up", &format!("endpoint=\"{}\",", a.url())).await, 0.0);
    let (before, probed) = (a.asked(), a.script.probed.load(Ordering::SeqCst));
    stage.answerers(40).await;
    assert_eq!(a.asked(), before);
    a.script.health.store(200, Ordering::SeqCst);
    eventually("a to serve", async || (stage.get("/").await.1 == "a").then_some(())).await;
    assert_eq!(stage.metric("endpoint_up", &format!("endpoint=\"{}\",", a.url())).await, 1.0);
    let down = stage.log_lines("fails its health checks");
    assert_eq!((down.len(), stage.log_lines("passes its health checks").len()), (1, 1), "one line for each change");
    assert_eq!(down[0]["why"], "it answers with 503 Service Unavailable");
    assert!(a.script.probed.load(Ordering::SeqCst) > probed);
    // A probe is not a request: it is not in the access log, and no route counts it.
    assert!(stage.gateway.log().iter().all(|line| line["path"] != "/healthz"));
    assert_eq!(stage.metric("ejections_total", &format!("endpoint=\"{}\",", a.url())).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_prober_checks_for_all_workers_as_configured() {
    let a = Service::start("a").await;
    a.script.status.store(302, Ordering::SeqCst);
    let health = ", health: { path: \"/well?deep=1\", status: [204, 300-399], interval: 1h, host: health.internal }";
    let stage = Stage::before(&[&a], health);
    eventually("the question", async || (a.asked() == 1).then_some(())).await;
    // With two workers and an hour between two questions, each beyond the first would be another prober's.
    let line = stage.report().await;
    assert_eq!(line["endpoints"][0]["state"], "up", "302 is good");
    assert_eq!(a.asked(), 1);
    assert_eq!(*a.script.host.lock().unwrap(), "health.internal");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_no_endpoint_is_healthy_all_get_requests() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    a.script.health.store(500, Ordering::SeqCst);
    b.script.health.store(500, Ordering::SeqCst);
    let stage = Stage::before(&[&a, &b], HEALTH);
    eventually("both to be down", async || {
        (stage.state(0).await == "down" && stage.state(1).await == "down").then_some(())
    })
    .await;
    stage.answerers(40).await;
    assert!(a.asked() > 0 && b.asked() > 0);
    eventually("a line on that", async || (stage.log_lines("no endpoint is healthy").len() == 1).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_prober_stops_when_the_drain_begins() {
    let a = Service::start("a").await;
    let mut stage = Stage::before(&[&a], HEALTH);
    eventually("questions", async || (a.script.probed.load(Ordering::SeqCst) > 2).then_some(())).await;
    let held = tokio::spawn({
        let request = stage.client.get(stage.gateway.url("/hold")).bearer_auth(&stage.token.secret);
        async move { request.send().await.unwrap().status().as_u16() }
    });
    eventually("a request in flight", async || (a.script.held.load(Ordering::SeqCst) == 1).then_some(())).await;
    stage.gateway.signal(Signal::TERM);
    let asked = || a.script.probed.load(Ordering::SeqCst);
    // The drain goes on for as long as the request does; once the questions have stopped, none comes any more.
    eventually("the questions to stop", async || {
        let before = asked();
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        (asked() == before).then_some(())
    })
    .await;
    a.script.go.add_permits(1);
    assert_eq!(held.await.unwrap(), 200);
    assert!(stage.gateway.wait().await.success());
}

/// A server that is a process, so that it can be stopped in the middle of everything.
struct Python(Child);

impl Python {
    fn start() -> (Self, String) {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "--protocol", "HTTP/1.1", "0"]);
        let folder = std::env::temp_dir();
        let mut child = command.current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.split(" port ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        (Self(child), format!("http://127.0.0.1:{port}"))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_process_is_detected_and_returns() {
    let (paused, url) = Python::start();
    let b = Service::start("b").await;
    let health = ", health: { path: /, interval: 100ms, timeout: 1s, healthy: 1, unhealthy: 2 }, ejection: none";
    let stage = Stage::new(&format!("\"{url}\", \"{}\"", b.url()), health, "");
    eventually("both to serve", async || (stage.get("/").await.1 != "b").then_some(())).await;
    paused.signal(Signal::STOP);
    // The kernel still takes connections for it.
    eventually("it to be down", async || (stage.state(0).await == "down").then_some(())).await;
    let names = stage.answerers(30).await;
    assert!(names.iter().all(|name| name == "b"));
    paused.signal(Signal::CONT);
    eventually("it to be up", async || (stage.state(0).await == "up").then_some(())).await;
    eventually("it to serve", async || (stage.get("/").await.1 != "b").then_some(())).await;
    let down = stage.log_lines("fails its health checks");
    assert_eq!(down[0]["why"], "no answer within 1s");
}
