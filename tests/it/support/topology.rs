//! Real Redis servers that belong together: a cluster, a primary with its replica and sentinels, a server with TLS.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use redis::{FromRedisValue, Value};
use tempfile::TempDir;

use super::eventually_blocking;
use super::redis::{RedisServer, free_port};

/// Slots of a cluster.
const SLOTS: usize = 16_384;

/// Sends one command, its words separated by blanks, and reads the answer.
pub fn say<T: FromRedisValue>(server: &RedisServer, words: &str) -> T {
    try_say(server, words).unwrap()
}

/// The same to a server that may break off, as one does that changes its role.
pub fn try_say<T: FromRedisValue>(server: &RedisServer, words: &str) -> redis::RedisResult<T> {
    let mut connection = redis::Client::open(server.url())?.get_connection()?;
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    words.for_each(|word| _ = command.arg(word));
    command.query(&mut connection)
}

/// How often a server has answered with an error of this name.
pub fn errors(server: &RedisServer, name: &str) -> usize {
    let stats: String = say(server, "INFO errorstats");
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("errorstat_{name}:count=")));
    line.map_or(0, |count| count.parse().unwrap())
}

/// Three primaries that share the slots evenly; more servers may join.
pub struct RedisCluster {
    pub nodes: Vec<RedisServer>,
}

impl RedisCluster {
    pub fn start() -> Self {
        let nodes: Vec<RedisServer> = (0..3).map(|_| Self::server()).collect();
        for (index, node) in nodes.iter().enumerate() {
            let (first, end) = (SLOTS * index / 3, SLOTS * (index + 1) / 3);
            let _: Value = say(node, &format!("CLUSTER ADDSLOTSRANGE {first} {}", end - 1));
            let _: Value = say(node, &format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1));
        }
        let cluster = Self { nodes };
        cluster.meet();
        cluster
    }

    /// A replica of one of the primaries; it is the last of the nodes.
    pub fn add_replica(&mut self, of: usize) {
        let id: String = say(&self.nodes[of], "CLUSTER MYID");
        self.nodes.push(Self::server());
        self.meet();
        let replica = &self.nodes[self.nodes.len() - 1];
        let _: Value = say(replica, &format!("CLUSTER REPLICATE {id}"));
        eventually_blocking("the replica to follow", || {
            let state: String = say(replica, "INFO replication");
            state.contains("master_link_status:up").then_some(())
        });
    }

    /// The URLs of all nodes, as a list in YAML.
    pub fn urls(&self) -> String {
        let urls: Vec<String> = self.nodes.iter().map(|node| format!("\"{}\"", node.url())).collect();
        format!("[{}]", urls.join(", "))
    }

    /// The node that serves a key's slot, and the slot.
    pub fn owner(&self, key: &str) -> (usize, u16) {
        let slot: u16 = say(&self.nodes[0], &format!("CLUSTER KEYSLOT {key}"));
        (usize::from(slot) * 3 / SLOTS, slot)
    }

    fn server() -> RedisServer {
        let bus = free_port().to_string();
        let settings = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", &bus];
        let rest = ["--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"];
        RedisServer::start_with(&[&settings[..], &rest].concat())
    }

    /// Makes all know each other.
    fn meet(&self) {
        for one in &self.nodes {
            for other in &self.nodes {
                let bus: Vec<String> = say(other, "CONFIG GET cluster-port");
                let _: Value = say(one, &format!("CLUSTER MEET 127.0.0.1 {} {}", other.port(), bus[1]));
            }
        }
        let known = format!("cluster_known_nodes:{}\r", self.nodes.len());
        for node in &self.nodes {
            eventually_blocking("the cluster to form", || {
                let state: String = say(node, "CLUSTER INFO");
                let slots = state.contains("cluster_slots_ok:16384");
                (slots && state.contains("cluster_state:ok") && state.contains(&known)).then_some(())
            });
        }
    }
}

/// A primary, its replica and three sentinels that watch them as `mymaster`. A failover happens when a test orders it and at no other
/// time: sentinels that judge by themselves take a primary for dead that a busy machine keeps waiting.
pub struct Watched {
    /// The primary of the start is the first.
    pub servers: [RedisServer; 2],
    sentinels: Vec<(Child, u16)>,
    /// With the sentinels' logs.
    folder: TempDir,
}

impl Watched {
    pub fn start() -> Self {
        let primary = RedisServer::start_with(&["--repl-diskless-sync-delay", "0"]);
        let port = primary.port().to_string();
        let replica = RedisServer::start_with(&["--repl-diskless-sync-delay", "0"]);
        let _: Value = say(&replica, &format!("REPLICAOF 127.0.0.1 {port}"));
        eventually_blocking("the replica to follow", || {
            let state: String = say(&replica, "INFO replication");
            state.contains("master_link_status:up").then_some(())
        });
        let folder = TempDir::new().unwrap();
        let sentinels = (0..3).map(|number| sentinel(folder.path(), number, &port)).collect();
        let watched = Self { servers: [primary, replica], sentinels, folder };
        for (_, port) in &watched.sentinels {
            eventually_blocking("the sentinels to know each other", || {
                let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
                let mut connection = client.get_connection().ok()?;
                let mut question = redis::cmd("SENTINEL");
                let facts = question.arg("MASTER").arg("mymaster").query(&mut connection);
                let facts: std::collections::HashMap<String, String> = facts.ok()?;
                (facts["num-other-sentinels"] == "2" && facts["num-slaves"] == "1").then_some(())
            });
        }
        watched
    }

    /// Which of the servers the sentinels say is the primary, once most of them agree.
    pub fn primary(&self) -> Option<usize> {
        let reported = self.sentinels.iter().filter_map(|(_, port)| {
            let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
            let mut question = redis::cmd("SENTINEL");
            question.arg("GET-MASTER-ADDR-BY-NAME").arg("mymaster");
            let (_, port): (String, u16) = question.query(&mut client.get_connection().ok()?).ok()?;
            self.servers.iter().position(|server| server.port() == port)
        });
        let reported: Vec<usize> = reported.collect();
        (0..2).find(|server| reported.iter().filter(|one| *one == server).count() >= 2)
    }

    /// Has a sentinel make the replica the primary, and returns when most of them say that it is.
    pub fn fail_over(&self, new: usize) {
        let ask = |question: &mut redis::Cmd| {
            let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.sentinels[0].1)).unwrap();
            question.query::<Value>(&mut client.get_connection().ok()?).ok()
        };
        // It refuses until it has heard of late from the replica.
        let order = || ask(redis::cmd("SENTINEL").arg("FAILOVER").arg("mymaster")).map(drop);
        eventually_blocking("a sentinel to take the order", order);
        eventually_blocking("the replica to be the primary", || {
            let state: String = try_say(&self.servers[new], "INFO replication").ok()?;
            (self.primary() == Some(new) && state.contains("role:master")).then_some(())
        });
    }

    /// Starts the dead one of the servers again, as the replica of the other.
    pub fn rejoin(&mut self, dead: usize) {
        let primary = format!("127.0.0.1 {}", self.servers[1 - dead].port());
        self.servers[dead].restart_with(&["--replicaof", &primary]);
        eventually_blocking("the old primary to follow", || {
            let state: String = try_say(&self.servers[dead], "INFO replication").ok()?;
            state.contains("master_link_status:up").then_some(())
        });
    }

    /// Whether the replica has all by now that the primary had when this was asked.
    pub fn is_in_step(&self, primary: usize) -> Option<()> {
        let offset = |server: usize, name: &str| {
            let state: String = try_say(&self.servers[server], "INFO replication").ok()?;
            state.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.parse::<u64>().ok())
        };
        let sent = offset(primary, "master_repl_offset")?;
        (offset(1 - primary, "slave_repl_offset")? >= sent).then_some(())
    }

    /// The value of `store.redis.sentinel`.
    pub fn config(&self) -> String {
        let urls: Vec<String> =
            self.sentinels.iter().map(|(_, port)| format!("\"redis://127.0.0.1:{port}\"")).collect();
        format!("{{ service: mymaster, nodes: [{}] }}", urls.join(", "))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        for (child, _) in &mut self.sentinels {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for (_, port) in &self.sentinels {
                let log = std::fs::read_to_string(self.folder.path().join(format!("{port}.log")));
                eprintln!("--- log of the sentinel on port {port}\n{}", log.unwrap_or_default());
            }
        }
    }
}

fn sentinel(folder: &Path, number: usize, primary: &str) -> (Child, u16) {
    for _ in 0..10 {
        let port = free_port();
        let path = folder.join(format!("sentinel-{number}-{port}.conf"));
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nlogfile {port}.log\nsentinel monitor mymaster 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds mymaster 600000\nsentinel failover-timeout mymaster 60000\n",
            folder.display()
        );
        std::fs::write(&path, text).unwrap();
        let mut command = Command::new("redis-server");
        command.arg(&path).arg("--sentinel").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let log = || std::fs::read_to_string(folder.join(format!("{port}.log"))).unwrap_or_default();
        let started = eventually_blocking("a sentinel to start", || match child.try_wait().unwrap() {
            Some(_) => Some(false),
            // It says so when the port is its own.
            None => log().contains("Sentinel ID is").then_some(true),
        });
        if started {
            return (child, port);
        }
    }
    panic!("no sentinel started on any of ten free ports");
}

/// A server with TLS, and the certificates around it.
pub struct TlsServer {
    pub server: RedisServer,
    pub tls_port: u16,
    folder: TempDir,
}

impl TlsServer {
    /// `more` are further arguments, for example that clients must show a certificate.
    pub fn start(more: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let file = |name: &str| folder.path().join(name);
        let write = |name: &str, text: String| std::fs::write(file(name), text).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        // OpenSSL tells issuers apart by their names.
        params.distinguished_name.push(rcgen::DnType::CommonName, "the tests");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        write("ca.pem", params.self_signed(&key).unwrap().pem());
        let issuer = rcgen::Issuer::new(params, key);
        for (name, host) in [("server", "127.0.0.1"), ("client", "gate")] {
            let key = rcgen::KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::new([host.to_owned()]).unwrap();
            write(&format!("{name}.pem"), params.signed_by(&key, &issuer).unwrap().pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
        let other = rcgen::generate_simple_self_signed(["other".to_owned()]).unwrap();
        write("other.pem", other.cert.pem());
        let tls_port = free_port();
        let text = |name: &str| file(name).to_str().unwrap().to_owned();
        let (cert, key, ca, port) = (text("server.pem"), text("server.key"), text("ca.pem"), tls_port.to_string());
        let own = ["--tls-port", &port, "--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
        let server = RedisServer::start_with(&[&own[..], more].concat());
        Self { server, tls_port, folder }
    }

    /// `ca.pem`, `other.pem`, `client.pem` or `client.key`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
