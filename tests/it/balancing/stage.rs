//! Services with scripted answers that can be killed and restarted at the same address; and a gateway for several of them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use reqwest::Client;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use crate::support::client::{header, http1};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Site, Token};

/// A service; dropped, it is gone with all its connections.
pub struct Service {
    pub address: SocketAddr,
    pub script: Arc<Script>,
    task: JoinHandle<()>,
}

/// The answers of a service, and the requests that it got.
pub struct Script {
    name: String,
    /// The status of `/healthz`.
    pub health: AtomicU16,
    /// The status of everything else.
    pub status: AtomicU16,
    /// Breaks off instead of an answer.
    pub breaks: AtomicBool,
    /// Breaks off in the middle of its answers, as soon as it may go on.
    pub halves: AtomicBool,
    /// Says that its answers are events.
    pub has_events: AtomicBool,
    /// Milliseconds before an answer.
    pub delay: AtomicUsize,
    /// Connections made.
    pub connections: AtomicUsize,
    /// Requests other than health probes.
    pub asked: AtomicUsize,
    /// Health probes.
    pub probed: AtomicUsize,
    /// Requests to `/hold` wait for one of these, and so do answers in their middle.
    pub go: Semaphore,
    /// Those that wait.
    pub held: AtomicUsize,
    /// The `Host` of the last request.
    pub host: Mutex<String>,
}

impl Service {
    pub async fn start(name: &str) -> Self {
        let script = Arc::new(Script {
            name: name.to_owned(),
            health: AtomicU16::new(200),
            status: AtomicU16::new(200),
            breaks: AtomicBool::new(false),
            halves: AtomicBool::new(false),
            has_events: AtomicBool::new(false),
            delay: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            probed: AtomicUsize::new(0),
            go: Semaphore::new(0),
            held: AtomicUsize::new(0),
            host: Mutex::default(),
        });
        Self::at("127.0.0.1:0".parse().unwrap(), script).await
    }

    async fn at(address: SocketAddr, script: Arc<Script>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(accept(listener, script.clone()));
        Self { address, script, task }
    }

    /// Ends it and all its connections; returns when its port is closed.
    pub async fn kill(mut self) -> Dead {
        self.task.abort();
        let _ = (&mut self.task).await;
        Dead { address: self.address, script: self.script.clone() }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn asked(&self) -> usize {
        self.script.asked.load(Ordering::SeqCst)
    }

    pub fn connections(&self) -> usize {
        self.script.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A service that has ended; it can start again on the same port.
pub struct Dead {
    address: SocketAddr,
    script: Arc<Script>,
}

impl Dead {
    pub async fn revive(self) -> Service {
        Service::at(self.address, self.script).await
    }
}

async fn accept(listener: TcpListener, script: Arc<Script>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else { return };
        let script = script.clone();
        script.connections.fetch_add(1, Ordering::SeqCst);
        connections.spawn(async move {
            let service = service_fn(|request| answer(script.clone(), request));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, std::io::Error>>;

/// Its name, and the request's id in `x-saw`.
async fn answer(script: Arc<Script>, request: Request<Incoming>) -> Result<Answer, std::io::Error> {
    let id = request.headers().get("x-request-id").cloned();
    let path = request.uri().path().to_owned();
    let host = request.headers().get("host").map(|host| host.to_str().unwrap().to_owned());
    *script.host.lock().unwrap() = host.unwrap_or_default();
    let status = if path == "/healthz" {
        script.probed.fetch_add(1, Ordering::SeqCst);
        &script.health
    } else {
        script.asked.fetch_add(1, Ordering::SeqCst);
        let _ = request.into_body().collect().await;
        if script.breaks.load(Ordering::SeqCst) {
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        tokio::time::sleep(Duration::from_millis(script.delay.load(Ordering::SeqCst) as u64)).await;
        if path == "/hold" {
            script.held.fetch_add(1, Ordering::SeqCst);
            script.go.acquire().await.unwrap().forget();
            script.held.fetch_sub(1, Ordering::SeqCst);
        }
        &script.status
    };
    let name = Full::new(script.name.clone().into()).map_err(|never| match never {}).boxed_unsync();
    let is_half = path != "/healthz" && script.halves.load(Ordering::SeqCst);
    let mut response = Response::new(if is_half { half(script.clone()) } else { name });
    *response.status_mut() = http::StatusCode::from_u16(status.load(Ordering::SeqCst)).unwrap();
    if script.has_events.load(Ordering::SeqCst) {
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/event-stream"));
    }
    if let Some(id) = id {
        response.headers_mut().insert("x-saw", id);
    }
    Ok(response)
}

/// One piece, and the end of the connection when it may go on.
fn half(script: Arc<Script>) -> UnsyncBoxBody<Bytes, std::io::Error> {
    let frames = futures_util::stream::unfold(0, move |piece| {
        let script = script.clone();
        async move {
            match piece {
                0 => Some((Ok(Frame::data(Bytes::from("half"))), 1)),
                _ => {
                    script.held.fetch_add(1, Ordering::SeqCst);
                    script.go.acquire().await.unwrap().forget();
                    script.held.fetch_sub(1, Ordering::SeqCst);
                    Some((Err(std::io::ErrorKind::ConnectionAborted.into()), 1))
                }
            }
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

/// A gateway of two workers before some services, and a client.
pub struct Stage {
    pub gateway: Gateway,
    pub token: Token,
    pub client: Client,
}

fn site(endpoints: &str, upstream: &str, route: &str) -> Arc<Site> {
    Site::new(&format!(
        "store: memory\ntokens: {{ file: tokens.yaml }}\nroutes: [{{ path: \"/{{*rest}}\", upstream: up{route} }}]\n\
         plans: {{ standard: {{ limits: {{ minute: 1000000/1m }} }} }}\n\
         upstreams: {{ up: {{ endpoints: [{endpoints}]{upstream} }} }}"
    ))
}

impl Stage {
    /// `endpoints` as the configuration has them; `upstream` is more keys of the upstream, `route` more of the route.
    pub fn new(endpoints: &str, upstream: &str, route: &str) -> Self {
        Self::on(site(endpoints, upstream, route))
    }

    /// The same with one worker, so that it does not matter over how many connections a client asks.
    pub fn on_one_worker(endpoints: &str, upstream: &str) -> Self {
        Self::on_workers(1, endpoints, upstream)
    }

    /// The same with so many workers.
    pub fn on_workers(count: usize, endpoints: &str, upstream: &str) -> Self {
        let site = site(endpoints, upstream, "");
        site.replace("workers: 2", &format!("workers: {count}"));
        Self::on(site)
    }

    fn on(site: Arc<Site>) -> Self {
        let token = site.token(&[]);
        let gateway = site.serve();
        Self { client: http1(&gateway), token, gateway }
    }

    /// Before these services.
    pub fn before(services: &[&Service], upstream: &str) -> Self {
        Self::new(&urls(services), upstream, "")
    }

    /// The status of a GET, and the service that answered.
    pub async fn get(&self, path: &str) -> (u16, String) {
        self.ask(self.client.get(self.gateway.url(path))).await
    }

    /// Asks in the background; the status and `Retry-After`.
    pub fn send(&self, path: &str) -> JoinHandle<(u16, String)> {
        let request = self.client.get(self.gateway.url(path)).bearer_auth(&self.token.secret);
        tokio::spawn(async move {
            let response = request.send().await.unwrap();
            let answer = (response.status().as_u16(), header(&response, "retry-after").to_owned());
            // A client that leaves before the end makes the gateway close the upstream's connection.
            let _ = response.bytes().await;
            answer
        })
    }

    /// Waits until so many requests wait.
    pub async fn waiting(&self, count: u64) {
        eventually(&format!("{count} to wait"), async || (self.report().await["waiting"] == count).then_some(())).await;
    }

    pub async fn ask(&self, request: reqwest::RequestBuilder) -> (u16, String) {
        let response = request.bearer_auth(&self.token.secret).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// The names of the services that answered `count` GETs in turn, all with 200.
    pub async fn answerers(&self, count: usize) -> Vec<String> {
        let mut names = Vec::new();
        for _ in 0..count {
            let (status, name) = self.get("/").await;
            assert_eq!(status, 200, "{name}");
            names.push(name);
        }
        names
    }

    /// The report of the admin listener on the only upstream.
    pub async fn report(&self) -> Value {
        let (status, text) = self.gateway.admin("/api/upstreams").await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str::<Value>(&text).unwrap()["upstreams"][0].clone()
    }

    /// The state of one endpoint: up, ejected or down.
    pub async fn state(&self, index: usize) -> String {
        self.report().await["endpoints"][index]["state"].as_str().unwrap().to_owned()
    }

    /// Log lines with this in their message.
    pub fn log_lines(&self, message: &str) -> Vec<Value> {
        let log = self.gateway.log().into_iter();
        log.filter(|line| line["message"].as_str().is_some_and(|text| text.contains(message))).collect()
    }

    /// A metric of the upstream with these labels before `upstream`.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let series = format!("callgate_upstream_{name}{{{labels}upstream=\"up\"}}");
        self.gateway.metric(&series).await.unwrap_or_else(|| panic!("no metric {series}"))
    }
}

pub fn urls(services: &[&Service]) -> String {
    let urls: Vec<String> = services.iter().map(|service| format!("\"{}\"", service.url())).collect();
    urls.join(", ")
}

pub fn count(names: &[String], name: &str) -> usize {
    names.iter().filter(|found| *found == name).count()
}
