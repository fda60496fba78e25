//! Redis killed, paused, brought back with an old memory, and cut off, all under load: what each policy promises its clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::fleet::{By, Entry, Fleet, Life};
use super::judge::{Limit, Span};
use super::law::{Facts, Loss, admissions, breaches};
use crate::support::eventually;
use crate::support::gateway::{Site, Token};
use crate::support::proxy::{Passing, Proxy};
use crate::support::redis::RedisServer;
use crate::support::upstream::Upstream;

/// Gateways on one Redis.
const PLACES: usize = 2;
/// The first two tokens are pressed beyond their limits, the last one never meets its own.
const LIMITS: [&[(usize, u64)]; 3] = [&[(10, 3), (40, 20)], &[(30, 60)], &[(1_000_000, 3_600)]];
const STEADY: usize = 2;
/// The pause of a client between its requests: many of these scenes share two processors.
const PAUSE: Duration = Duration::from_millis(40);

const CALM: Duration = Duration::from_secs(2);
/// Longer than the shortest window.
const OUTAGE: Duration = Duration::from_millis(3_500);
const AFTER: Duration = Duration::from_secs(4);
/// The longest median time of authentication and decision while the circuit is open. A decision that waited for Redis would
/// take the whole deadline.
const OWN: Duration = Duration::from_secs(1);
/// The most that an outage may then add to the median time of a request for its client; far less than the deadline.
const ADDED: Duration = Duration::from_secs(1);
/// A Redis that is only slow, because the machine is busy, answers in this time.
const DEADLINE: Duration = Duration::from_secs(5);
/// Each part of a scene lasts until each instance has answered so many requests that meet no limit.
const ENOUGH: usize = 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outage {
    /// SIGKILL; it comes back with all that it knew.
    Killed,
    /// SIGSTOP and SIGCONT.
    Paused,
    /// SIGKILL; it comes back with the tokens, and without a single admission.
    Emptied,
    /// The network passes nothing, for anybody.
    CutOff,
    /// The network passes nothing for the first instance.
    OneCutOff,
    /// Redis hears the questions, and nobody hears its answers.
    Unheard,
}

impl Outage {
    fn hits(self, place: usize) -> bool {
        self != Self::OneCutOff || place == 0
    }
}

struct Scene {
    outage: Outage,
    /// Whether each instance limits by itself meanwhile.
    limits_itself: bool,
    redis: RedisServer,
    proxies: Vec<Proxy>,
    upstream: Upstream,
    fleet: Arc<Fleet>,
    facts: Facts,
    /// Before each outage.
    calm: Vec<Span>,
    /// From when the circuits were open until the outage's end.
    open: Vec<Span>,
}

impl Scene {
    async fn new(policy: &str, outage: Outage) -> Self {
        let keeps = ["--appendonly", "yes", "--appendfsync", "always"];
        let redis = RedisServer::start_with(if outage == Outage::Emptied { &[] } else { &keeps });
        let upstream = Upstream::start().await;
        let (mut proxies, mut sites) = (Vec::new(), Vec::new());
        for _ in 0..PLACES {
            let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], redis.port()))).await;
            let deadline = DEADLINE.as_secs();
            let store = format!(", deadline: {deadline}s, connect_timeout: {deadline}s, on_failure: {policy}");
            let plan = "plans: { none: { limits: {} } }";
            sites.push(Site::on_redis(&format!("redis://{}", proxy.address), &store, upstream.address, plan));
            proxies.push(proxy);
        }
        let tokens = LIMITS.map(|limits| token(&sites[0], limits));
        if outage == Outage::Emptied {
            // A restart restores the present data.
            redis.say::<()>(&["SAVE"]);
        }
        let fleet = Fleet::new(PLACES, tokens.to_vec());
        for (place, site) in sites.iter().enumerate() {
            fleet.takes_over(place, site.serve());
        }
        let limits = LIMITS.map(limits).to_vec();
        let facts = Facts { limits, deadline: DEADLINE, allows_all: policy == "allow", ..Facts::default() };
        let limits_itself = policy == "local";
        Self { outage, limits_itself, redis, proxies, upstream, fleet, facts, calm: Vec::new(), open: Vec::new() }
    }

    /// Load, and an outage.
    async fn run(&mut self) -> Vec<Entry> {
        let mut lanes = Vec::new();
        for place in 0..PLACES {
            for protocol in 0..2 {
                let mut turn = 0;
                lanes.push(self.fleet.lane(PAUSE, move || {
                    turn += 1;
                    (place, protocol, turn % LIMITS.len(), "/status/200", 1)
                }));
            }
        }
        self.strike().await;
        self.fleet.end();
        for lane in lanes {
            lane.await.unwrap();
        }
        self.fleet.record().await
    }

    async fn strike(&mut self) {
        let calm = self.fleet.now();
        self.lasts(calm, CALM).await;
        let from = self.fleet.now();
        self.begins();
        self.all_are(0.0).await;
        let opened = self.fleet.now();
        let hit = self.hit();
        if self.limits_itself {
            self.are_counted(r#"callgate_decisions_total{outcome="denied",source="local"}"#, &hit).await;
        }
        self.lasts(opened, OUTAGE).await;
        let to = self.fleet.now();
        self.ends();
        self.all_are(1.0).await;
        let merged = self.fleet.recovers().await;
        self.facts.merged.push(merged);
        let healed = self.fleet.now();
        self.calm.push(Span { from: calm, to: from });
        self.open.push(Span { from: opened, to });
        self.facts.outages.push(Span { from, to: healed });
        if self.outage == Outage::Emptied {
            self.facts.losses.push(Loss { span: Span { from, to: healed }, forgotten: Duration::MAX });
        }
        let all = self.fleet.lives();
        self.are_counted(r#"callgate_decisions_total{outcome="admitted",source="redis"}"#, &all).await;
        self.lasts(healed, AFTER).await;
    }

    /// Waits until each of these has counted enough decisions of a kind, from now on; one after the other may take its time.
    async fn are_counted(&self, decisions: &str, lives: &[Arc<Life>]) {
        for life in lives {
            let before = life.gateway.metric(decisions).await.unwrap_or(0.0);
            for count in 1..=ENOUGH {
                let enough = Some(before + count as f64);
                eventually(decisions, async || (life.gateway.metric(decisions).await >= enough).then_some(())).await;
            }
        }
    }

    /// Waits until so much time has gone by, and each instance has answered enough to be judged.
    async fn lasts(&self, from: Duration, time: Duration) {
        self.fleet.until(from + time).await;
        let since = Span { from, to: Duration::MAX };
        for life in self.fleet.lives() {
            for count in 1..=ENOUGH {
                let answered = || self.steady(since, std::slice::from_ref(&life)).len();
                eventually("one more request", async || (answered() >= count).then_some(())).await;
            }
        }
    }

    /// How long the requests to these took that never meet a limit, as their clients saw it.
    fn steady(&self, within: Span, lives: &[Arc<Life>]) -> Vec<Duration> {
        let inside = |entry: &Entry| entry.span.from >= within.from && entry.span.to <= within.to;
        let is_theirs = |entry: &Entry| lives.iter().any(|life| life.number == entry.life);
        let is_steady = |entry: &&Entry| entry.token == STEADY && is_theirs(entry) && inside(entry);
        self.fleet.so_far().iter().filter(is_steady).map(|entry| entry.span.to - entry.span.from).collect()
    }

    fn begins(&mut self) {
        match self.outage {
            Outage::Killed | Outage::Emptied => self.redis.kill(),
            Outage::Paused => self.redis.pause(),
            Outage::CutOff => self.proxies.iter().for_each(|proxy| proxy.let_pass(Passing::Nothing)),
            Outage::OneCutOff => self.proxies[0].let_pass(Passing::Nothing),
            Outage::Unheard => self.proxies.iter().for_each(|proxy| proxy.let_pass(Passing::Questions)),
        }
    }

    fn ends(&mut self) {
        match self.outage {
            Outage::Killed | Outage::Emptied => tokio::task::block_in_place(|| self.redis.restart()),
            Outage::Paused => self.redis.resume(),
            Outage::CutOff | Outage::OneCutOff | Outage::Unheard => {
                self.proxies.iter().for_each(|proxy| proxy.let_pass(Passing::Both));
            }
        }
    }

    /// Waits until those that the outage hits say whether Redis answers.
    async fn all_are(&self, up: f64) {
        for life in self.hit() {
            let gauge = async || (life.gateway.metric("callgate_store_up").await == Some(up)).then_some(());
            eventually("the gauge to follow", gauge).await;
        }
    }

    fn hit(&self) -> Vec<Arc<Life>> {
        (0..PLACES).filter(|place| self.outage.hits(*place)).filter_map(|place| self.fleet.at(place)).collect()
    }

    /// How much longer requests took in the last outage than before it, at the median.
    fn added(&self) -> Duration {
        let last = self.open.len() - 1;
        let [before, during] =
            [self.calm[last], self.open[last]].map(|within| median(self.steady(within, &self.hit())));
        during.saturating_sub(before)
    }

    /// Checks the properties that hold under every policy.
    async fn judge(&self, record: &[Entry]) {
        let breaches = breaches(record, &self.facts);
        assert!(breaches.is_empty(), "{:?}: {breaches:#?}", self.outage);
        let added = self.added();
        assert!(added < ADDED, "{:?} added {added:?} to the median request", self.outage);
        let took = median(self.during(record).iter().map(|entry| entry.deciding).collect());
        assert!(took < OWN, "{:?}: deciding took {took:?} at the median", self.outage);
        // Each admitted request is forwarded once, and no other request is.
        let admitted = record.iter().filter(|entry| entry.is_admitted()).count();
        assert_eq!(self.upstream.seen().len(), admitted, "{:?}", self.outage);
        for life in self.fleet.lives() {
            let after = self.facts.outages[self.facts.outages.len() - 1].to;
            let again = record.iter().filter(|entry| entry.life == life.number && entry.span.from > after);
            let by_redis = again.filter(|entry| entry.is_admitted() && entry.by == Some(By::Redis)).count();
            assert!(by_redis > 20, "{:?}: Redis decides again, and admitted only {by_redis}", self.outage);
        }
    }

    /// The answers that were sent to those hit while their circuits were open.
    fn during<'a>(&self, record: &'a [Entry]) -> Vec<&'a Entry> {
        let hit: Vec<usize> = self.hit().iter().map(|life| life.number).collect();
        let inside = |entry: &&Entry| {
            let within = |open: &Span| entry.span.from > open.from && entry.span.to < open.to;
            hit.contains(&entry.life) && self.open.iter().any(within)
        };
        record.iter().filter(inside).collect()
    }
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort();
    values[values.len() / 2]
}

fn token(site: &Site, limits: &[(usize, u64)]) -> Token {
    let limits: Vec<String> = limits.iter().map(|(count, window)| format!("w{window}={count}/{window}s")).collect();
    let arguments: Vec<&str> = limits.iter().flat_map(|limit| ["--limit", limit]).collect();
    site.token_with(&[], &arguments)
}

fn limits(limits: &[(usize, u64)]) -> Vec<Limit> {
    limits.iter().map(|&(count, window)| Limit { count, window: Duration::from_secs(window) }).collect()
}

/// No client gets an error; each instance limits exactly by itself; together they admit at most the limit times their number.
async fn each_goes_on_by_itself(outage: Outage) {
    let mut scene = Scene::new("local", outage).await;
    let record = scene.run().await;
    let odd: Vec<&Entry> = record.iter().filter(|entry| ![Some(200), Some(429)].contains(&entry.status)).collect();
    assert!(odd.is_empty(), "{outage:?}: {odd:#?}");
    scene.judge(&record).await;
    let during = scene.during(&record);
    for life in scene.hit() {
        let own = || during.iter().filter(|entry| entry.life == life.number);
        assert!(own().all(|entry| entry.has_limit_headers && entry.by != Some(By::Redis)), "{outage:?}");
        let admitted = own().filter(|entry| entry.by == Some(By::Local) && entry.is_admitted()).count();
        let refused = own().filter(|entry| entry.by == Some(By::Local) && !entry.is_admitted()).count();
        assert!(admitted > 5 && refused > 5, "{outage:?}: {admitted} admitted, {refused} refused by itself");
    }
    // In all, no more than the limit times the instances; and once more for a Redis that has forgotten.
    let books = PLACES + scene.facts.losses.len();
    for (token, limits) in scene.facts.limits.iter().enumerate() {
        let of_token: Vec<&Entry> = record.iter().filter(|entry| entry.token == token).collect();
        for limit in limits {
            let together = Limit { count: limit.count * books, ..*limit };
            assert_eq!(together.unexplained(&admissions(&of_token)), 0, "{outage:?}: {limit:?} times {books}");
        }
    }
}

/// Nothing passes that Redis has not admitted, so that no limit is ever exceeded, by anybody.
async fn nothing_passes(outage: Outage) {
    let mut scene = Scene::new("deny", outage).await;
    let record = scene.run().await;
    scene.judge(&record).await;
    assert!(record.iter().filter(|entry| entry.is_admitted()).all(|entry| entry.by == Some(By::Redis)));
    for entry in record.iter().filter(|entry| entry.status == Some(503)) {
        let in_outage = |outage: &Span| entry.span.to >= outage.from && entry.span.from <= outage.to;
        assert!(scene.facts.outages.iter().any(in_outage) || entry.met_deadline(DEADLINE), "{outage:?}: {entry:?}");
        assert_eq!(entry.code.as_deref(), Some("unavailable"));
    }
    let during = scene.during(&record);
    let denied = during.iter().filter(|entry| entry.status == Some(503)).count();
    assert!(denied > 50, "{outage:?}: {denied}");
    // A refusal of Redis that still stands is repeated.
    let others: Vec<_> = during.iter().filter(|entry| entry.status != Some(503)).collect();
    assert!(others.iter().all(|entry| entry.by == Some(By::DenyCache)), "{outage:?}: {others:#?}");
}

/// Everything passes while Redis does not answer, and is told no limits.
async fn everything_passes(outage: Outage) {
    let mut scene = Scene::new("allow", outage).await;
    let record = scene.run().await;
    scene.judge(&record).await;
    let during = scene.during(&record);
    let (free, others): (Vec<&Entry>, Vec<&Entry>) = during.iter().partition(|entry| entry.by == Some(By::Local));
    assert!(free.len() > 50 && free.iter().all(|entry| entry.is_admitted() && !entry.has_limit_headers), "{outage:?}");
    assert!(others.iter().all(|entry| entry.by == Some(By::DenyCache)), "{outage:?}: {others:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_dies_and_pauses_under_load() {
    tokio::join!(
        each_goes_on_by_itself(Outage::Killed),
        each_goes_on_by_itself(Outage::Paused),
        each_goes_on_by_itself(Outage::Emptied),
        nothing_passes(Outage::Paused),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_cut_off_under_load() {
    tokio::join!(
        each_goes_on_by_itself(Outage::CutOff),
        each_goes_on_by_itself(Outage::OneCutOff),
        each_goes_on_by_itself(Outage::Unheard),
        everything_passes(Outage::CutOff),
    );
}
