//! Random histories of a whole installation: instances with clocks of their own are killed, ended and started, Redis dies, pauses,
//! forgets, is cut off or fails over, while clients ask for random tokens and open calls; and every answer is judged.
//!
//! The deviations that each kind of event allows; there are no others:
//!
//! - An instance is killed (SIGKILL): its requests under way get no answer, and may count; its calls count until their leases end.
//! - An instance is ended (SIGTERM): connections that are just being used may break; nothing else.
//! - Redis is killed or paused, or the way to it is cut: each instance goes on by itself and admits at most the limit, counting all
//!   that it has admitted before; 503 only for a token that Redis has not confirmed to this instance since the outage before. What
//!   was asked and not answered may count as well, once Redis is back; what was admitted meanwhile does, for the requests that
//!   reach the same instance at once, and for all others when it is merged. What an instance that ends has not merged by then is
//!   forgotten.
//! - Redis forgets (it comes back without logs): what it admits from then on is exact by itself.
//! - Redis fails over: what was answered may be forgotten if the replica was not seen to have it before the primary died.
//! - An instance reads its configuration again: nothing.
//! - An instance's clock is wrong, by up to an hour: nothing. (No two instances have the same, and Redis has another.)
//!
//! At all times: no status but 200, 101, 429 and that 503, which a Redis that took its whole deadline may cause as well; nobody is
//! refused who may pass.
//!
//! `CALLGATE_CHAOS_SEED=N` repeats the choices of a run (their timing is the machine's), `CALLGATE_SOAK_MINUTES=N` makes more runs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use rustix::process::Signal;

use super::calls::Switchboard;
use super::events::{Event, Installation};
use super::fleet::{By, Entry, Fleet};
use super::judge::{Limit, Span};
use super::law::{Facts, breaches};
use crate::support::calls::switchboard;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::upstream::Upstream;

/// Instances at one time.
pub const PLACES: usize = 3;
const TOKENS: usize = 6;
const LENGTH: Duration = Duration::from_secs(14);
const MAX_LENGTH: Duration = Duration::from_secs(120);
/// What a run must have tried to mean anything.
const MIN_ADMITTED: usize = 100;
const MIN_CALLS: usize = 5;
/// A wrong clock in a process (libfaketime, which `tests/run` installs), as a shared library for each architecture.
const FAKE_TIME: &str = "/usr/$LIB/faketime/libfaketime.so.1";

/// A token, what holds for it, and the cost of what it asks.
struct Holder {
    token: Token,
    limits: Vec<Limit>,
    cap: Option<usize>,
    dear: bool,
}

/// One run: what was chosen, and what happened.
pub struct Run {
    pub random: Rng,
    pub fleet: Arc<Fleet>,
    pub sites: Vec<Arc<Site>>,
    pub facts: Facts,
    story: Story,
}

/// Told when a run fails.
struct Story {
    name: &'static str,
    seed: u64,
    lines: Vec<String>,
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {} failed; CALLGATE_CHAOS_SEED={} chooses the same again", self.name, self.seed);
            self.lines.iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

impl Run {
    /// Something happens now.
    pub fn describe(&mut self, what: String) {
        self.story.lines.push(format!("{:>8.3} s  {what}", self.fleet.now().as_secs_f64()));
    }

    /// A new instance takes a place, with a clock of its own.
    fn starts(&mut self, place: usize) {
        let off: f64 = match self.random.u8(..4) {
            0 => 0.0,
            1 => self.random.f64() - 0.5,
            2 => 10.0 * (self.random.f64() - 0.5),
            _ => 7_200.0 * (self.random.f64() - 0.5),
        };
        self.describe(format!("place {place}: a new instance, its clock off by {off:+.3} s"));
        let seconds = format!("{off:+.3}s");
        let environment = [
            ("LD_PRELOAD", FAKE_TIME),
            ("FAKETIME", seconds.as_str()),
            // Deadlines are not what is being tried, and a killed process must leave nothing behind.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("FAKETIME_DISABLE_SHM", "1"),
        ];
        let gateway = tokio::task::block_in_place(|| self.sites[place].serve_with(&environment));
        assert_clock(&gateway, off);
        self.fleet.takes_over(place, gateway);
    }

    /// An instance ends, with warning or without, and another one takes its place.
    pub async fn replaces(&mut self, place: usize, signal: Signal) {
        let Some(life) = self.fleet.leaves(place) else { return };
        self.describe(format!("place {place}: {signal:?}"));
        life.killed.store(signal == Signal::KILL, Ordering::Relaxed);
        *life.ended.lock().unwrap() = Some(self.fleet.now());
        life.gateway.signal(signal);
        self.starts(place);
    }

    /// An instance reads its configuration again.
    pub async fn reloads(&mut self, place: usize) {
        let Some(life) = self.fleet.at(place) else { return };
        let site = &self.sites[place];
        let text = std::fs::read_to_string(site.config()).unwrap();
        let others = text.lines().filter(|line| !line.starts_with("plans: ")).collect::<Vec<_>>().join("\n");
        let plans = plans(self.random.u32(11..1_000_000));
        std::fs::write(site.path("next.yaml"), format!("{others}\n{plans}\n")).unwrap();
        std::fs::rename(site.path("next.yaml"), site.config()).unwrap();
        life.gateway.signal(Signal::HUP);
        self.describe(format!("place {place}: reloads"));
        // One that is ending meanwhile reads nothing.
        let is_done = || life.ended.lock().unwrap().is_some() || life.gateway.output().contains("plan spare");
        eventually("the reload", async || is_done().then_some(())).await;
    }
}

/// The clock of a gateway that has just started is off by so many seconds; the runs would prove less otherwise.
fn assert_clock(gateway: &Gateway, off: f64) {
    let first = gateway.log().into_iter().find_map(|line| line["timestamp"].as_str().map(str::to_owned));
    let reported = humantime::parse_rfc3339(&first.expect("a line of the log")).unwrap();
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let seen = since(reported) - since(SystemTime::now());
    assert!((seen - off).abs() < 30.0, "off by {seen} s and not {off} s: is libfaketime installed?");
}

fn holder(site: &Site, random: &mut Rng) -> Holder {
    let mut windows = [1u64, 2, 3, 5, 8];
    random.shuffle(&mut windows);
    let limits: Vec<Limit> = windows[..random.usize(1..4)]
        .iter()
        .map(|window| Limit { count: random.usize(3..12 + 4 * *window as usize), window: Duration::from_secs(*window) })
        .collect();
    let cap = random.bool().then(|| random.usize(1..5));
    let mut arguments = Vec::new();
    for Limit { count, window } in &limits {
        arguments.extend(["--limit".to_owned(), format!("w{0}={count}/{0}s", window.as_secs())]);
    }
    if let Some(cap) = cap {
        arguments.extend(["--concurrent-calls".to_owned(), cap.to_string()]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Holder { token: site.token_with(&[], &arguments), limits, cap, dear: random.u8(..3) == 0 }
}

fn site(store: &str, upstream: &Upstream, media: std::net::SocketAddr) -> Arc<Site> {
    Site::new(&format!(
        "store: {{ redis: {{ {store}, deadline: 1s, on_failure: local }} }}\n\
         {}\ndefault_plan: none\n\
         drain: {{ timeout: 2s, calls: 2s, spread: 0s }}\n\
         routes:\n  - {{ path: /call, upstream: media }}\n  - {{ path: /dear, upstream: up, cost: 3 }}\n\
         \x20 - {{ path: \"/{{*rest}}\", upstream: up }}\n\
         upstreams: {{ up: {{ endpoints: [\"http://{}\"] }}, media: {{ endpoints: [\"http://{media}\"] }} }}",
        plans(10),
        upstream.address
    ))
}

/// The plans of a configuration: that of all tokens, and one that is nobody's.
fn plans(spare: u32) -> String {
    format!("plans: {{ none: {{ limits: {{}} }}, spare: {{ limits: {{ w: {spare}/1s }} }} }}")
}

/// One run on a fresh installation.
async fn run(name: &'static str, seed: u64, mut installation: impl Installation) -> String {
    let story = Story { name, seed, lines: Vec::new() };
    let mut random = Rng::with_seed(seed);
    let (upstream, media) = (Upstream::start().await, switchboard().await);
    let sites: Vec<_> = installation.stores().iter().map(|store| site(store, &upstream, media)).collect();
    let holders: Vec<Holder> =
        tokio::task::block_in_place(|| (0..TOKENS).map(|_| holder(&sites[0], &mut random)).collect());
    let tokens = holders.iter().map(|holder| holder.token.clone()).collect();
    let deadline = Duration::from_secs(1);
    let facts =
        Facts { deadline, limits: holders.iter().map(|holder| holder.limits.clone()).collect(), ..Facts::default() };
    let lanes_of = random.fork();
    let mut run = Run { random, fleet: Fleet::new(PLACES, tokens), sites, facts, story };
    for place in 0..PLACES {
        run.starts(place);
    }
    let (lanes, switchboard) = load(&run.fleet, &holders, lanes_of);
    let end = run.fleet.now() + LENGTH;
    // On a busy machine little happens in that time.
    let has_tried_enough = |fleet: &Fleet| {
        fleet.count(Entry::is_admitted) > MIN_ADMITTED && fleet.count(|entry| entry.status == Some(101)) > MIN_CALLS
    };
    while run.fleet.now() < end || (!has_tried_enough(&run.fleet) && run.fleet.now() < MAX_LENGTH) {
        let event = Event::any(&mut run.random, &installation.events());
        event.happens(&mut run, &mut installation).await;
        let pause = Duration::from_millis(run.random.u64(300..1_500));
        tokio::time::sleep(pause).await;
    }
    run.fleet.end();
    for lane in lanes {
        lane.await.unwrap();
    }
    let record = run.fleet.record().await;
    run.facts.ended = run.fleet.ends();
    let mut found = breaches(&record, &run.facts);
    let caps: Vec<Option<usize>> = holders.iter().map(|holder| holder.cap).collect();
    found.extend(switchboard.breaches(&run.fleet, &record, &caps, &run.facts));
    found.extend(record.iter().filter_map(|entry| odd(entry, &record, &run)));
    assert!(found.is_empty(), "{found:#?}");
    summary(&record, &run)
}

/// Requests of all kinds, and calls.
fn load(
    fleet: &Arc<Fleet>,
    holders: &[Holder],
    mut random: Rng,
) -> (Vec<tokio::task::JoinHandle<()>>, Arc<Switchboard>) {
    let dear: Vec<bool> = holders.iter().map(|holder| holder.dear).collect();
    let mut lanes = Vec::new();
    for _ in 0..6 {
        let (mut random, dear) = (random.fork(), dear.clone());
        lanes.push(fleet.lane(Duration::from_millis(25), move || {
            let token = random.usize(..TOKENS);
            let (path, cost) = if dear[token] && random.u8(..3) == 0 { ("/dear", 3) } else { ("/status/200", 1) };
            (random.usize(..PLACES), random.usize(..2), token, path, cost)
        }));
    }
    let switchboard = Arc::new(Switchboard::default());
    for _ in 0..4 {
        let mut random = random.fork();
        lanes.push(switchboard.lane(fleet, move || {
            (random.usize(..PLACES), random.usize(..TOKENS), Duration::from_millis(random.u64(50..1_500)))
        }));
    }
    (lanes, switchboard)
}

/// An answer that nothing allows.
fn odd(entry: &Entry, record: &[Entry], run: &Run) -> Option<String> {
    let life = &run.fleet.lives()[entry.life];
    let allowed = match entry.status {
        Some(200 | 101 | 429) => true,
        // Its instance was ending.
        None => life.ended.lock().unwrap().is_some(),
        Some(503) => {
            let is_out = |outage: &Span| outage.from <= entry.span.to && outage.to >= entry.span.from;
            let confirmed = |since: Duration| {
                record.iter().any(|other| {
                    (other.life, other.token, other.by) == (entry.life, entry.token, Some(By::Redis))
                        && other.span.from >= since
                        && other.span.to < entry.span.from
                })
            };
            // Changes may have been missed until the outage before was over.
            let before = std::iter::once(Duration::ZERO).chain(run.facts.outages.iter().map(|outage| outage.to));
            let last = before.clone().filter(|before| *before <= entry.span.from).max().unwrap_or(Duration::ZERO);
            (entry.met_deadline(run.facts.deadline) && !confirmed(last))
                || run.facts.outages.iter().zip(before).any(|(outage, before)| is_out(outage) && !confirmed(before))
        }
        Some(_) => false,
    };
    (!allowed).then(|| format!("an answer that nothing allows: {entry:?}"))
}

/// A summary of the run in one line.
fn summary(record: &[Entry], run: &Run) -> String {
    let count = |what: &dyn Fn(&&Entry) -> bool| record.iter().filter(what).count();
    let admitted = count(&|entry| entry.is_admitted());
    let by_itself = count(&|entry| entry.is_admitted() && entry.by == Some(By::Local));
    let calls = count(&|entry| entry.status == Some(101));
    let (lives, outages) = (run.fleet.lives().len(), run.facts.outages.len());
    assert!(
        admitted > MIN_ADMITTED && calls > MIN_CALLS,
        "hardly anything was tried: {admitted} requests, {calls} calls"
    );
    format!(
        "{} requests judged, {admitted} admitted ({by_itself} without Redis), {calls} calls, {lives} instances, {outages} outages",
        record.len()
    )
}

/// One run, or as many as there is time for.
async fn runs<I: Installation>(name: &'static str, mut install: impl AsyncFnMut() -> I) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let ends = number("CALLGATE_SOAK_MINUTES").map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    loop {
        let seed = number("CALLGATE_CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..));
        let reported = run(name, seed, install().await).await;
        println!("{name}, seed {seed}: {reported}");
        if ends.is_none_or(|ends| Instant::now() > ends) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_through_failures_of_instances_and_one_redis() {
    runs("limits_hold_through_failures_of_instances_and_one_redis", super::events::Alone::install).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_through_failures_of_instances_and_redis_behind_sentinels() {
    runs("limits_hold_through_failures_of_instances_and_redis_behind_sentinels", super::events::Elected::install).await;
}
