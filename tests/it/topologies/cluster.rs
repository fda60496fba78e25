//! A cluster: exact decisions, slots that move under load, scripts that are forgotten, nodes that die.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use callgate::tokens::{Action, ActionContext, Actor, Draft, Filter, Operation, Origin, Registry, TrailFilter};
use redis::Value;

use super::{AT_ONCE, admitted, config, decide, instance, issue, open, plan, store, trouble};
use crate::support::redis::RedisServer;
use crate::support::topology::{RedisCluster, errors, say};
use crate::support::{eventually, eventually_blocking};

const TOKENS: [&str; 6] = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot"];

fn key(token_id: &str) -> String {
    format!("callgate:{{{token_id}}}:token")
}

/// A token whose slot lies on this node.
fn token_on(cluster: &RedisCluster, node: usize) -> String {
    (0..).map(|number| format!("token{number}")).find(|id| cluster.owner(&key(id)).0 == node).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_are_exact_and_tokens_are_managed() {
    let cluster = RedisCluster::start();
    // One of the nodes is enough to find the others.
    let redis = format!("cluster: \"{}\"", cluster.nodes[1].url());
    let store_ = store(&redis);
    let (a, connection) = instance(&store_).await;
    let (b, _) = instance(&store_).await;
    let owners: std::collections::BTreeSet<_> = TOKENS.iter().map(|id| cluster.owner(&key(id)).0).collect();
    assert_eq!(owners.len(), 3, "the tokens lie on all nodes");
    for id in TOKENS {
        issue(&connection, id).await;
    }
    let (some, rest) = (admitted(&[a.clone(), b.clone()], TOKENS[0], 60, 20).await, 60 - 40);
    assert_eq!(some, 40);
    // One node forgets its scripts; it is told again in place.
    let owner = cluster.owner(&key(TOKENS[0])).0;
    let _: Value = say(&cluster.nodes[owner], "SCRIPT FLUSH");
    assert_eq!(admitted(&[a.clone(), b.clone()], TOKENS[0], 60, 40).await, rest);
    for id in &TOKENS[1..] {
        assert_eq!(admitted(&[a.clone(), b.clone()], id, 60, 50).await, 60, "{id}");
    }

    let config = config(&redis);
    let registry = Registry::with_redis(&config, connection);
    let now = SystemTime::now();
    let by = ActionContext { actor: Actor::person("tester", "here"), now };
    let mut made = Vec::new();
    for _ in 0..5 {
        let draft = Draft { name: "Dialler".into(), account: "acme".into(), ..Draft::default() };
        let issued = registry.issue(draft, Origin::New, None, &by).await.unwrap();
        made.push(issued.edited.record.id);
    }
    registry.operate(&made[2], Operation::Revoke, None, &by).await.unwrap();
    // Their entries and the records lie on different nodes.
    let trail = registry.trail(&TrailFilter::default(), None, 10, now).await.unwrap().entries;
    assert_eq!((trail.len(), trail[0].action, &trail[0].tokens[0]), (6, Action::Revoke, &made[2]));
    let listing = registry.list(&Filter::default(), None, 100, now).await.unwrap();
    let mut listed: Vec<String> = listing.tokens.into_iter().map(|token| token.record.id).collect();
    listed.sort();
    made.sort();
    assert_eq!(listed, made);
}

/// Moves the slot of a token from one node to another as an operator's tool does, and waits at each step until callers
/// have run into it.
fn move_slot(cluster: &RedisCluster, token_id: &str, slot: u16, from: usize, to: usize) {
    let (from, to) = (&cluster.nodes[from], &cluster.nodes[to]);
    let (from_id, to_id): (String, String) = (say(from, "CLUSTER MYID"), say(to, "CLUSTER MYID"));
    let asked = errors(from, "ASK");
    let _: Value = say(to, &format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}"));
    let _: Value = say(from, &format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}"));
    let keys: Vec<String> = say(from, &format!("CLUSTER GETKEYSINSLOT {slot} 10"));
    assert!(keys.contains(&key(token_id)), "{keys:?}");
    let _: Value = {
        let mut command = redis::cmd("MIGRATE");
        command.arg("127.0.0.1").arg(to.port()).arg("").arg(0).arg(5_000).arg("KEYS").arg(keys);
        command.query(&mut redis::Client::open(from.url()).unwrap().get_connection().unwrap()).unwrap()
    };
    eventually_blocking("an ASK", || (errors(from, "ASK") > asked).then_some(()));
    for node in [to, from] {
        let _: Value = say(node, &format!("CLUSTER SETSLOT {slot} NODE {to_id}"));
    }
    // Callers get there by a MOVED, or by a survey that was faster.
    let served = decisions(to);
    eventually_blocking("calls at the new node", || (decisions(to) > served + 20).then_some(()));
}

/// How many scripts a server has run.
fn decisions(server: &RedisServer) -> usize {
    let stats: String = say(server, "INFO commandstats");
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moving_a_slot_under_load_loses_and_duplicates_no_admission() {
    const LIMIT: u32 = 1_000_000;
    let cluster = Arc::new(RedisCluster::start());
    let store = store(&format!("cluster: {}", cluster.urls()));
    let (first, connection) = instance(&store).await;
    let (second, _) = instance(&store).await;
    issue(&connection, "alpha").await;
    decide(&first, "alpha", &plan(LIMIT)).await;
    let (owner, slot) = cluster.owner(&key("alpha"));
    let stop = Arc::new(AtomicBool::new(false));
    let admitted_before = Arc::new(AtomicUsize::new(1));
    let callers: Vec<_> = [first.clone(), second.clone(), first, second.clone()]
        .into_iter()
        .map(|limiter| {
            let (stop, admitted) = (stop.clone(), admitted_before.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    // Panics when the call fails.
                    assert!(decide(&limiter, "alpha", &plan(LIMIT)).await.admitted);
                    admitted.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_micros(500)).await;
                }
            })
        })
        .collect();
    let moving = cluster.clone();
    let moves = tokio::task::spawn_blocking(move || {
        for step in 0..4 {
            move_slot(&moving, "alpha", slot, (owner + step) % 3, (owner + step + 1) % 3);
        }
    });
    moves.await.unwrap();
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(cluster.nodes.iter().map(|node| errors(node, "MOVED")).sum::<usize>() > 0, "somebody was sent on");
    let counted = admitted_before.load(Ordering::Relaxed) as u32;
    let last = decide(&second, "alpha", &plan(LIMIT)).await;
    assert_eq!(last.windows()[0].used, counted + 1, "each admission stands in the log once");
    // And the limit is the limit.
    let limit = counted + 1 + 60;
    assert_eq!(admitted(&[second], "alpha", limit, 100).await, 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_fails_its_slots_at_once_and_no_others() {
    let mut cluster = RedisCluster::start();
    cluster.add_replica(1);
    let store = store(&format!("cluster: {}", cluster.urls()));
    let (redis, health) = open(&store).await;
    let [dead, replaced, alive] = [0, 1, 2].map(|node| token_on(&cluster, node));
    for id in [&dead, &replaced, &alive] {
        issue(&redis, id).await;
    }
    assert_eq!(health.trouble(), None);
    let read = async |id: &str| {
        let mut command = redis::cmd("HGET");
        redis.call(command.arg(key(id)).arg("version")).await
    };
    cluster.nodes[0].kill();
    cluster.nodes[1].kill();
    eventually("the loss to be noticed", async || health.trouble()).await;
    let started = Instant::now();
    for _ in 0..20 {
        assert!(read(&dead).await.is_err());
        // A node that has found itself in a minority answers nothing any more.
        if let Err(error) = read(&alive).await {
            let state: String = cluster.nodes[2].say(&["CLUSTER", "INFO"]);
            assert!(state.contains("cluster_state:fail"), "{error}");
        }
    }
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    // Two of three primaries are gone: there is no majority for a failover until one is back.
    cluster.nodes[0].restart();
    eventually("the replica to take over", async || read(&replaced).await.ok()).await;
    let back = eventually("the restarted node to serve its slots", async || read(&dead).await.ok()).await;
    assert_eq!(back, Value::Nil, "it came back empty");
}

#[tokio::test]
async fn a_server_that_is_no_cluster_is_reported() {
    let server = RedisServer::start();
    let reported = trouble(&format!("cluster: \"{}\"", server.url())).await;
    assert!(reported.contains("is not part of a cluster"), "{reported}");
    assert!(trouble("cluster: \"redis://127.0.0.1:1\"").await.contains("no node of the Redis cluster answers"));
}
