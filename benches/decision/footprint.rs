//! What one token and one decision take of a Redis: memory, bytes to and from it, bytes to a replica, CPU time.
//!
//! Tokens are made and decided on as the program does it, 16 at a time, on one connection if nothing else is said. The same is done with a server that keeps nothing, and with
//! one that writes an append-only file and has a replica, as a production server has.

use std::sync::Arc;
use std::time::SystemTime;

use callgate::config::{Config, OnFailure, RedisStore};
use callgate::limits::{DenyCache, LimitSubject, Limiter, MemoryLimiter, RedisLimiter};
use callgate::store::Redis;
use callgate::tokens::{ActionContext, Actor, Draft, Origin, Registry, TRAIL_LENGTH, UsageCounts, UsageWriter};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::iter;

use super::{open, plan, store, unix_ms};
use crate::server::RedisServer;

/// Tokens whose cost is counted, besides those that fill the audit trail.
const TOKENS: usize = 16_384;
const AT_ONCE: usize = 16;

/// What a server says of itself.
#[derive(Clone, Copy)]
struct Reading {
    memory: f64,
    from_clients: f64,
    to_clients: f64,
    to_replica: f64,
    /// Of the main thread.
    cpu_us: f64,
}

/// A token as the limiter knows it.
struct Subject {
    id: Arc<str>,
    version: u64,
}

pub(crate) fn run() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for (name, args) in [("keeps nothing", &[][..]), ("append-only file and a replica", &["--appendonly", "yes"])] {
        let server = RedisServer::start_with(args);
        let port = server.port().to_string();
        let replica = (!args.is_empty()).then(|| RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]));
        while replica.is_some() && server.say::<i64>(&["WAIT", "1", "1000"]) < 1 {}
        println!("\nRedis that {name}, per token or decision ({TOKENS} of each)");
        println!("{:56}{:>10}{:>8}{:>8}{:>14}{:>9}", "", "memory B", "in B", "out B", "to replica B", "CPU µs");
        runtime.block_on(rows(&server));
    }
}

async fn rows(server: &RedisServer) {
    // The usual namespace: it is in every key.
    let store = RedisStore { namespace: "callgate".into(), ..store(server) };
    let mut connections = vec![open(&store).await];
    let registry = Arc::new(Registry::with_redis(&configuration(&store), connections[0].clone()));
    issue(&registry, TRAIL_LENGTH).await;
    let mut before = read(server);
    let mut row = |name: &str, count: usize| {
        let now = read(server);
        let per = |pick: fn(&Reading) -> f64| (pick(&now) - pick(&before)) / count as f64;
        let memory = per(|reading| reading.memory).round() as i64;
        let to_replica = per(|reading| reading.to_replica);
        let (from, to) = (per(|reading| reading.from_clients), per(|reading| reading.to_clients));
        let cpu_us = per(|reading| reading.cpu_us);
        println!("{name:56}{memory:>10}{from:>8.0}{to:>8.0}{to_replica:>14.0}{cpu_us:>9.1}");
        before = read(server);
    };
    let subjects = issue(&registry, TOKENS).await;
    row("a token is made: its record", TOKENS);
    let usual = [(60, 60_000), (1_000, 3_600_000)];
    decide(&connections, &subjects, &usual).await;
    row("its first decision, admitted", TOKENS);
    for _ in 0..30 {
        decide(&connections, &subjects, &usual).await;
    }
    row("the next 30, admitted", 30 * TOKENS);
    while connections.len() < AT_ONCE {
        connections.push(open(&store).await);
    }
    for _ in 0..29 {
        decide(&connections, &subjects, &usual).await;
    }
    row("the next 29, one at a time on each of 16 connections", 29 * TOKENS);
    decide(&connections[..1], &subjects, &usual).await;
    row("the next, refused", TOKENS);
    decide(&connections, &subjects, &usual).await;
    row("another one, refused, one at a time on each of 16", TOKENS);
    let uses = Arc::new(UsageCounts::default());
    let writer = UsageWriter::new(registry.clone(), uses.clone());
    for name in ["its usage is saved for the first time", "its usage is saved again"] {
        subjects.iter().for_each(|subject| uses.note(&subject.id, SystemTime::now()));
        writer.write().await;
        row(name, TOKENS);
    }
}

/// A configuration with this store; only its plans and the prefix of its tokens matter here.
fn configuration(store: &RedisStore) -> Config {
    let callgate::config::RedisServers::Single(node) = &store.servers else { unreachable!("one server") };
    let text = format!(
        "tls: {{ certificates: [{{ cert: c.pem, key: k.pem }}] }}\n\
         store: {{ redis: {{ url: \"redis://{}:{}\" }} }}\n\
         routes: [{{ path: /calls, upstream: calls }}]\n\
         upstreams: {{ calls: {{ endpoints: [\"http://127.0.0.1:1\"] }} }}\n",
        node.host, node.port
    );
    let parsed = callgate::config::parse(std::path::Path::new("bench.yaml"), &text, &|_| None);
    parsed.expect("a good configuration").config
}

async fn issue(registry: &Registry, count: usize) -> Vec<Subject> {
    let by = ActionContext { actor: Actor::person("bench", "here"), now: SystemTime::now() };
    let issue = async |number: usize| {
        let draft = Draft {
            name: format!("Dialler {number:06}"),
            account: format!("account-{:05}", number / 10),
            permissions: vec!["calls:read".into(), "calls:write".into()],
            ..Draft::default()
        };
        let issued = registry.issue(draft, Origin::New, None, &by).await.expect("a token").edited;
        Subject { id: issued.record.id.into(), version: issued.version }
    };
    iter(0..count).map(issue).buffer_unordered(AT_ONCE).collect().await
}

/// One decision for each token, by instances that know of none before, [`AT_ONCE`] at a time over all connections.
async fn decide(connections: &[Redis], subjects: &[Subject], limits: &[(u32, u32)]) {
    let plan = &plan(limits);
    let on_one = async |(redis, subjects): (&Redis, &[Subject])| {
        let (local, denials) = (Arc::new(MemoryLimiter::new(64)), Arc::new(DenyCache::new(64)));
        let redis = RedisLimiter::new(redis.clone(), OnFailure::Deny, local, denials, Arc::default());
        let limiter = &Limiter::Redis(redis);
        let decide = async |subject: &Subject| {
            let subject = LimitSubject { token_id: &subject.id, version: subject.version };
            limiter.decide(&subject, plan, 1, unix_ms(), &|| true).await.expect("a decision");
        };
        iter(subjects).map(decide).buffer_unordered(AT_ONCE / connections.len()).collect::<()>().await;
    };
    let parts = connections.iter().zip(subjects.chunks(subjects.len() / connections.len()));
    join_all(parts.map(on_one)).await;
}

fn read(server: &RedisServer) -> Reading {
    let text = ["memory", "stats", "cpu"].map(|section| server.say::<String>(&["INFO", section])).concat();
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.and_then(|value| value.trim().parse::<f64>().ok()).expect("a field of Redis 7.0 and later")
    };
    let to_replica = field("total_net_repl_output_bytes");
    Reading {
        memory: field("used_memory"),
        from_clients: field("total_net_input_bytes"),
        to_clients: field("total_net_output_bytes") - to_replica,
        to_replica,
        cpu_us: 1e6 * (field("used_cpu_user_main_thread") + field("used_cpu_sys_main_thread")),
    }
}
