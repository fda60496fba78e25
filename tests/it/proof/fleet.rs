//! Instances of the program under load, and the record of every answer that they gave.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Client;

use super::judge::Span;
use crate::support::client::{header, http1, http2};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Token};

/// One request and what became of it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its place among the tokens.
    pub token: usize,
    /// What it counts.
    pub cost: usize,
    /// The life of the instance that was asked.
    pub life: usize,
    /// From before it was sent until after it was answered.
    pub span: Span,
    /// `None` if the connection broke before the answer.
    pub status: Option<u16>,
    /// The code of an answer of the gateway's own.
    pub code: Option<String>,
    /// Who decided, if anybody did and the access log survived to tell.
    pub by: Option<By>,
    /// How long that took, by the same log.
    pub deciding: Duration,
    /// Whether the answer told a limit.
    pub told_limits: bool,
    id: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Redis,
    DenyCache,
    Local,
}

impl Entry {
    pub fn is_admitted(&self) -> bool {
        self.status == Some(200)
    }
}

/// One life of an instance, from its start to its end.
pub struct Life {
    pub gateway: Gateway,
    pub number: usize,
    /// It was ended without warning: its access log may lack the last lines.
    pub killed: AtomicBool,
    clients: [Client; 2],
}

/// All that a run asked and heard.
pub struct Fleet {
    pub tokens: Vec<Token>,
    began: Instant,
    over: AtomicBool,
    /// The instances that serve now; an empty place has none.
    places: Vec<Mutex<Option<Arc<Life>>>>,
    lives: Mutex<Vec<Arc<Life>>>,
    entries: Mutex<Vec<Entry>>,
    ids: AtomicUsize,
}

impl Fleet {
    pub fn new(places: usize, tokens: Vec<Token>) -> Arc<Self> {
        Arc::new(Self {
            tokens,
            began: Instant::now(),
            over: AtomicBool::new(false),
            places: (0..places).map(|_| Mutex::default()).collect(),
            lives: Mutex::default(),
            entries: Mutex::default(),
            ids: AtomicUsize::new(0),
        })
    }

    /// The run's clock.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub async fn until(&self, moment: Duration) {
        tokio::time::sleep_until((self.began + moment).into()).await;
    }

    /// From now on a gateway serves at this place.
    pub fn takes_over(&self, place: usize, gateway: Gateway) -> Arc<Life> {
        let mut lives = self.lives.lock().unwrap();
        let clients = [http1(&gateway), http2(&gateway)];
        let life = Arc::new(Life { gateway, number: lives.len(), killed: AtomicBool::new(false), clients });
        lives.push(life.clone());
        *self.places[place].lock().unwrap() = Some(life.clone());
        life
    }

    pub fn at(&self, place: usize) -> Option<Arc<Life>> {
        self.places[place].lock().unwrap().clone()
    }

    pub fn lives(&self) -> Vec<Arc<Life>> {
        self.lives.lock().unwrap().clone()
    }

    /// Asks one instance once; `protocol` is 0 for HTTP/1.1 and 1 for HTTP/2. The path says how much it counts.
    pub async fn ask(&self, life: &Life, protocol: usize, token: usize, path: &str, cost: usize) -> Entry {
        let id = format!("run-{}", self.ids.fetch_add(1, Ordering::Relaxed));
        let request = life.clients[protocol].get(life.gateway.url(path)).bearer_auth(&self.tokens[token].secret);
        let from = self.now();
        let answer = request.header("x-request-id", &id).send().await;
        let mut entry = Entry {
            token,
            cost,
            life: life.number,
            span: Span { from, to: self.now() },
            status: answer.as_ref().ok().map(|answer| answer.status().as_u16()),
            code: None,
            by: None,
            deciding: Duration::ZERO,
            told_limits: false,
            id,
        };
        if let Ok(answer) = answer {
            entry.told_limits = !header(&answer, "x-ratelimit-limit").is_empty();
            let own = answer.status() != 200;
            let body = answer.text().await.unwrap_or_default();
            let told = serde_json::from_str::<serde_json::Value>(&body).ok().filter(|_| own);
            entry.code = told.and_then(|told| told["code"].as_str().map(str::to_owned));
        }
        self.entries.lock().unwrap().push(entry.clone());
        entry
    }

    /// Keeps asking until the run is over: `next` says at which place, with which protocol, token, path and cost.
    pub fn lane(
        self: &Arc<Self>,
        pause: Duration,
        mut next: impl FnMut() -> (usize, usize, usize, &'static str, usize) + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        let fleet = self.clone();
        tokio::spawn(async move {
            while !fleet.over.load(Ordering::Relaxed) {
                let (place, protocol, token, path, cost) = next();
                if let Some(life) = fleet.at(place) {
                    fleet.ask(&life, protocol, token, path, cost).await;
                }
                tokio::time::sleep(pause).await;
            }
        })
    }

    /// Ends all lanes.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// All answers by now, without who decided them.
    pub fn so_far(&self) -> Vec<Entry> {
        self.entries.lock().unwrap().clone()
    }

    /// Every answer in the order of asking, with who decided it, once the access logs of those that were not killed tell.
    pub async fn record(&self) -> Vec<Entry> {
        let mut entries = self.entries.lock().unwrap().clone();
        entries.sort_by_key(|entry| entry.span.from);
        for life in self.lives() {
            let answered: Vec<&mut Entry> =
                entries.iter_mut().filter(|entry| entry.life == life.number && entry.status.is_some()).collect();
            let deciders = eventually("the access log to be whole", async || {
                let deciders = deciders(&life.gateway);
                let is_whole = answered.iter().all(|entry| deciders.contains_key(&entry.id));
                (is_whole || life.killed.load(Ordering::Relaxed)).then_some(deciders)
            })
            .await;
            for entry in answered {
                if let Some((by, deciding)) = deciders.get(&entry.id) {
                    (entry.by, entry.deciding) = (*by, *deciding);
                }
            }
        }
        entries
    }
}

/// By the id of a request: who decided it, if anybody, and how long that took.
fn deciders(gateway: &Gateway) -> HashMap<String, (Option<By>, Duration)> {
    let lines = gateway.log().into_iter().filter(|line| line["message"] == "request");
    let decider = |line: serde_json::Value| {
        let by = match line["decided_by"].as_str() {
            Some("redis") => Some(By::Redis),
            Some("deny_cache") => Some(By::DenyCache),
            Some("local") => Some(By::Local),
            Some(other) => panic!("a decider unknown here: {other}"),
            None => None,
        };
        let took = Duration::from_secs_f64(line["decision_ms"].as_f64().unwrap_or(0.0) / 1e3);
        (line["request_id"].as_str().unwrap().to_owned(), (by, took))
    };
    lines.map(decider).collect()
}
