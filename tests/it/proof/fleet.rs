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

/// One request and its answer.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The index of its token.
    pub token: usize,
    /// Its cost.
    pub cost: usize,
    /// The life of the instance that was asked.
    pub life: usize,
    /// From before it was sent until after it was answered.
    pub span: Span,
    /// `None` if the connection broke before the answer.
    pub status: Option<u16>,
    /// The code of an answer of the gateway's own.
    pub code: Option<String>,
    /// The source of the decision, if there was one and the access log has it.
    pub by: Option<By>,
    /// How long authentication and decision took, by the same log.
    pub deciding: Duration,
    /// Whether the answer had limit headers.
    pub has_limit_headers: bool,
    /// Whether it asked for a call.
    pub is_call: bool,
    pub id: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Redis,
    DenyCache,
    Local,
}

impl Entry {
    pub fn is_admitted(&self) -> bool {
        matches!(self.status, Some(200 | 101))
    }

    /// Whether Redis had its whole time and did not answer, as it may on a busy machine without any outage.
    pub fn met_deadline(&self, deadline: Duration) -> bool {
        self.deciding >= deadline
    }

    /// Whether a limit refused it.
    pub fn is_refused(&self) -> bool {
        self.code.as_deref() == Some("rate_limited")
    }
}

/// One life of an instance, from its start to its end.
pub struct Life {
    pub gateway: Gateway,
    pub number: usize,
    /// When its end began.
    pub ended: Mutex<Option<Duration>>,
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
        let number = lives.len();
        let life = Arc::new(Life { gateway, number, ended: Mutex::default(), killed: AtomicBool::new(false), clients });
        lives.push(life.clone());
        *self.places[place].lock().unwrap() = Some(life.clone());
        life
    }

    pub fn at(&self, place: usize) -> Option<Arc<Life>> {
        self.places[place].lock().unwrap().clone()
    }

    /// How many answers by now are so.
    pub fn count(&self, is_so: impl Fn(&Entry) -> bool) -> usize {
        self.entries.lock().unwrap().iter().filter(|entry| is_so(entry)).count()
    }

    pub fn lives(&self) -> Vec<Arc<Life>> {
        self.lives.lock().unwrap().clone()
    }

    /// Asks one instance once; `protocol` is 0 for HTTP/1.1 and 1 for HTTP/2. The path says how much it counts.
    pub async fn ask(&self, life: &Life, protocol: usize, token: usize, path: &str, cost: usize) {
        let mut entry = Entry { cost, ..self.entry(token, life.number) };
        let request = life.clients[protocol].get(life.gateway.url(path)).bearer_auth(&self.tokens[token].secret);
        let answer = request.header("x-request-id", &entry.id).send().await;
        entry.span.to = self.now();
        if let Ok(answer) = answer {
            entry.status = Some(answer.status().as_u16());
            entry.has_limit_headers = !header(&answer, "x-ratelimit-limit").is_empty();
            let own = answer.status() != 200;
            let body = answer.text().await.unwrap_or_default();
            let reported = serde_json::from_str::<serde_json::Value>(&body).ok().filter(|_| own);
            entry.code = reported.and_then(|reported| reported["code"].as_str().map(str::to_owned));
        }
        self.enter(entry);
    }

    /// The entry of a request that is about to be sent.
    pub fn entry(&self, token: usize, life: usize) -> Entry {
        let now = self.now();
        Entry {
            token,
            cost: 1,
            life,
            span: Span { from: now, to: now },
            status: None,
            code: None,
            by: None,
            deciding: Duration::ZERO,
            has_limit_headers: false,
            is_call: false,
            id: format!("run-{}", self.ids.fetch_add(1, Ordering::Relaxed)),
        }
    }

    pub fn enter(&self, entry: Entry) {
        self.entries.lock().unwrap().push(entry);
    }

    /// Keeps asking until the run is over: `next` says at which place, with which protocol, token, path and cost.
    pub fn lane(
        self: &Arc<Self>,
        pause: Duration,
        mut next: impl FnMut() -> (usize, usize, usize, &'static str, usize) + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        let fleet = self.clone();
        tokio::spawn(async move {
            while !fleet.is_over() {
                let (place, protocol, token, path, cost) = next();
                if let Some(life) = fleet.at(place) {
                    fleet.ask(&life, protocol, token, path, cost).await;
                }
                tokio::time::sleep(pause).await;
            }
        })
    }

    /// No more requests go to this place.
    pub fn leaves(&self, place: usize) -> Option<Arc<Life>> {
        self.places[place].lock().unwrap().take()
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Ends all lanes.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Waits until all instances that serve say that Redis answers, and that they have merged into it what they admitted
    /// meanwhile; when the latter was so.
    pub async fn recovers(&self) -> Span {
        let living = || (0..self.places.len()).filter_map(|place| self.at(place));
        let [up, unmerged] = ["callgate_store_up", "callgate_unmerged_admissions"];
        for (series, value) in [(up, 1.0), (unmerged, 0.0)] {
            for life in living() {
                let is_there = async || (life.gateway.metric(series).await == Some(value)).then_some(());
                eventually(series, is_there).await;
            }
        }
        eventually("all to be merged at one time", async || {
            let from = self.now();
            for life in living() {
                if life.gateway.metric(unmerged).await != Some(0.0) {
                    return None;
                }
            }
            Some(Span { from, to: self.now() })
        })
        .await
    }

    /// When each life began to end, if it did.
    pub fn ends(&self) -> Vec<Option<Duration>> {
        self.lives().iter().map(|life| *life.ended.lock().unwrap()).collect()
    }

    /// All answers so far, without the sources of their decisions.
    pub fn so_far(&self) -> Vec<Entry> {
        self.entries.lock().unwrap().clone()
    }

    /// Every answer in the order of the requests, with the source of its decision, once the access logs have it.
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
                if let Some(line) = deciders.get(&entry.id) {
                    (entry.by, entry.deciding) = (line.by, line.deciding);
                    entry.code = entry.code.take().or(line.code.clone());
                }
            }
        }
        entries
    }
}

/// The decision that an access line reports.
struct Line {
    by: Option<By>,
    deciding: Duration,
    code: Option<String>,
}

/// Access lines by the ids of their requests.
fn deciders(gateway: &Gateway) -> HashMap<String, Line> {
    let lines = gateway.log().into_iter().filter(|line| line["message"] == "request");
    let read = |line: serde_json::Value| {
        let by = match line["decided_by"].as_str() {
            Some("redis") => Some(By::Redis),
            Some("deny_cache") => Some(By::DenyCache),
            Some("local") => Some(By::Local),
            Some(other) => panic!("a decider unknown here: {other}"),
            None => None,
        };
        let phases = ["auth_ms", "decision_ms"].map(|phase| line[phase].as_f64().unwrap_or(0.0));
        let deciding = Duration::from_secs_f64(phases.iter().sum::<f64>() / 1e3);
        let code = line["code"].as_str().map(str::to_owned);
        (line["request_id"].as_str().unwrap().to_owned(), Line { by, deciding, code })
    };
    lines.map(read).collect()
}
