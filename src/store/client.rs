//! The client of Redis: one server, or a cluster.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::Instant;

use super::cluster::Cluster;
use super::dial::{Dialer, OpenError};
use super::error::StoreError;
use super::health::StoreHealth;
use super::link::{Again, Link, LinkTarget, Recovery};
use super::request::{Request, ScriptRun};
use super::script::Script;
use super::sentinel::Sentinels;
use crate::config::{RedisServers, RedisStore};

/// How long Redis may take for a person's command: no request waits.
const COMMAND_DEADLINE: Duration = Duration::from_secs(5);

/// A replica that is well has a write within milliseconds.
const REPLICA_WAIT: Duration = Duration::from_millis(500);

/// Pipelined connections; clones share them.
#[derive(Clone)]
pub struct Redis {
    pub(super) shared: Arc<Connections>,
}

pub(super) struct Connections {
    pub(super) servers: Servers,
    deadline: Duration,
    namespace: Arc<str>,
    pub(super) dialer: Dialer,
    health: Arc<StoreHealth>,
}

pub(super) enum Servers {
    /// A server, or the one that is the primary.
    One(Link),
    Cluster(Cluster),
}

impl Redis {
    /// Connects, and keeps tasks on this runtime that heal the connections for as long as a clone lives. Returns after the
    /// first attempt, whether it succeeded or not.
    ///
    /// # Errors
    /// [`OpenError`] when the configuration's files can't be used; an absent server is no error.
    pub async fn open(store: &RedisStore, health: Arc<StoreHealth>) -> Result<Self, OpenError> {
        let dialer = Dialer::new(store)?;
        let one = async |target| {
            let link = Link::start(target, dialer.clone(), health.clone(), Arc::default());
            link.attempted().await;
            Servers::One(link)
        };
        let servers = match &store.servers {
            RedisServers::Single(node) => one(LinkTarget::Primary(node.clone())).await,
            RedisServers::Sentinel(sentinel) => one(LinkTarget::Elected(Sentinels::new(sentinel, &dialer))).await,
            RedisServers::Cluster(seeds) => {
                Servers::Cluster(Cluster::open(seeds, dialer.clone(), health.clone()).await)
            }
        };
        let (deadline, namespace) = (store.deadline, store.namespace.clone());
        Ok(Self { shared: Arc::new(Connections { servers, deadline, namespace, dialer, health }) })
    }

    /// A connection for a person's command, which waits up to 5 seconds and reports why there is none.
    ///
    /// # Errors
    /// [`OpenError`]; an absent server is one here.
    pub async fn open_for_command(store: &RedisStore) -> Result<Self, OpenError> {
        let store = RedisStore { deadline: COMMAND_DEADLINE, connect_timeout: COMMAND_DEADLINE, ..store.clone() };
        let health = Arc::new(StoreHealth::default());
        let redis = Self::open(&store, health.clone()).await?;
        match health.trouble() {
            Some(trouble) if !redis.is_up() => Err(OpenError::Down(trouble)),
            _ => Ok(redis),
        }
    }

    /// The prefix of every key, without its colon.
    #[must_use]
    pub fn namespace(&self) -> &Arc<str> {
        &self.shared.namespace
    }

    /// How long a call may take.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.shared.deadline
    }

    /// Whether there is a connection at the moment; with a cluster, to any of its nodes.
    #[must_use]
    pub fn is_up(&self) -> bool {
        match &self.shared.servers {
            Servers::One(link) => link.is_up(),
            Servers::Cluster(cluster) => cluster.is_up(),
        }
    }

    /// When the connection was lost, with a cluster those to all of its nodes; `None` while there is one, and before there was any.
    #[must_use]
    pub fn lost_at(&self) -> Option<std::time::Instant> {
        match &self.shared.servers {
            Servers::One(link) => link.lost_at(),
            Servers::Cluster(cluster) => cluster.lost_at(),
        }
    }

    /// The last time that a connection came back, with a cluster to any of its nodes.
    pub fn recovery(&self) -> Option<Recovery> {
        match &self.shared.servers {
            Servers::One(link) => link.recovery(),
            Servers::Cluster(cluster) => cluster.recovery(),
        }
    }

    /// Notes that a request is decided without Redis.
    pub(crate) fn note_decided_without(&self) {
        self.shared.health.decided();
    }

    /// Sends one command and waits for its answer, within the configured deadline. The command names its key first, or none. It is
    /// sent again if the connection breaks, so it must be one that may be carried out twice.
    ///
    /// # Errors
    /// [`StoreError`]; a command that met its deadline may have been carried out all the same.
    pub async fn call(&self, command: &Cmd) -> Result<Value, StoreError> {
        self.send(command, Again::May).await
    }

    /// The same for any request that may be carried out twice.
    ///
    /// # Errors
    /// [`StoreError`], as [`Redis::call`].
    pub(crate) async fn ask(&self, request: &dyn Request) -> Result<Value, StoreError> {
        self.send(request, Again::May).await
    }

    /// Runs a script by its digest, within the configured deadline. A server that doesn't know it is given it, in place. With a
    /// cluster, all keys must lie in one slot.
    ///
    /// # Errors
    /// [`StoreError`], as [`Redis::call`].
    pub async fn run(&self, script: &Script, keys: &[&[u8]], args: &[&[u8]]) -> Result<Value, StoreError> {
        self.send(&ScriptRun { script, keys, args }, Again::MustNot).await
    }

    async fn send(&self, request: &dyn Request, again: Again) -> Result<Value, StoreError> {
        let ends = self.ends();
        match &self.shared.servers {
            Servers::One(link) => link.call(request, false, again, ends).await,
            Servers::Cluster(cluster) => cluster.call(request, again, ends).await,
        }
    }

    /// When a call ends that begins now.
    fn ends(&self) -> Instant {
        Instant::now() + self.shared.deadline
    }

    /// Whether a replica has what this connection has written last beside `key`; `None`: there is no replica, or it can't be asked.
    /// It waits a moment for one.
    pub(crate) async fn has_replicated(&self, key: &str) -> Option<bool> {
        let ask = async |command: &Cmd| match &self.shared.servers {
            Servers::One(_) => self.send(command, Again::MustNot).await.ok(),
            Servers::Cluster(cluster) => cluster.call_owner(key, command, self.ends()).await.ok(),
        };
        // ("master", offset, replicas)
        let Value::Array(role) = ask(&redis::cmd("ROLE")).await? else { return None };
        let Some(Value::Array(replicas)) = role.get(2) else { return None };
        if replicas.is_empty() {
            return None;
        }
        let wait = (self.shared.deadline / 2).min(REPLICA_WAIT).as_millis() as u64;
        let Value::Int(count) = ask(redis::cmd("WAIT").arg(1).arg(wait)).await? else { return None };
        // WAIT says nothing of what an earlier connection has written, and a write is repeated for some seconds.
        if self.recovery().is_some_and(|recovery| recovery.at.elapsed() < COMMAND_DEADLINE + self.shared.deadline) {
            return Some(false);
        }
        Some(count > 0)
    }

    /// How many servers it is connected to, or would be: one, or each primary of a cluster.
    #[must_use]
    pub fn servers(&self) -> usize {
        match &self.shared.servers {
            Servers::One(_) => 1,
            Servers::Cluster(cluster) => cluster.members(),
        }
    }

    /// The same as [`Redis::call`] for the server of this number, whatever the command's key. Which number a server of a cluster
    /// has changes when servers come or go.
    ///
    /// # Errors
    /// [`StoreError`]; `Down` too if there is none of this number.
    pub async fn call_server(&self, server: usize, command: &Cmd) -> Result<Value, StoreError> {
        match &self.shared.servers {
            Servers::One(_) => self.call(command).await,
            Servers::Cluster(cluster) => cluster.call_member(server, command, self.ends()).await,
        }
    }
}
