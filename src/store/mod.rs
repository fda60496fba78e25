//! The connection to the Redis that all instances share: one server, a cluster, or whom the sentinels name. Each worker has its
//! own pipelined connections, healed in the background.
//!
//! A call either answers within its deadline or fails at once: while the connection is down nobody waits for it.

mod cluster;
mod dial;
mod health;
mod link;
mod outage;
mod script;
mod sentinel;
mod slots;
mod subscription;

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, RedisError, ServerErrorKind, Value};
use tokio::time::Instant;

use self::cluster::Cluster;
use self::dial::Dialer;
use self::link::{Link, Target};
use self::sentinel::Sentinels;
use self::slots::{slot_of, slot_of_command};
use crate::config::{RedisServers, RedisStore};

pub use dial::OpenError;
pub use health::StoreHealth;
pub use script::Script;
pub use subscription::{News, Subscription};

/// Why Redis gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no connection at the moment.
    #[error("no connection to Redis")]
    Down,
    /// The deadline passed.
    #[error("Redis did not answer in time")]
    Deadline,
    /// Redis answered with an error.
    #[error("Redis refused the command")]
    Refused(#[source] RedisError),
    /// Redis answered something that makes no sense here.
    #[error("unexpected answer from Redis: {0}")]
    Unexpected(&'static str),
}

/// Pipelined connections; clones share them.
#[derive(Clone)]
pub struct Redis {
    shared: Arc<Shared>,
}

struct Shared {
    servers: Servers,
    deadline: Duration,
    namespace: Arc<str>,
    config: RedisServers,
    dialer: Dialer,
}

enum Servers {
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
    pub async fn open(config: &RedisStore, health: Arc<StoreHealth>) -> Result<Self, OpenError> {
        let dialer = Dialer::new(config)?;
        let own = dialer.clone();
        let servers = match &config.servers {
            RedisServers::Single(node) => Servers::One(link(Target::Primary(node.clone()), dialer, health).await),
            RedisServers::Sentinel(sentinel) => {
                let target = Target::Elected(Sentinels::new(sentinel, &dialer));
                Servers::One(link(target, dialer, health).await)
            }
            RedisServers::Cluster(seeds) => Servers::Cluster(Cluster::open(seeds, dialer, health).await),
        };
        let shared = Shared {
            servers,
            deadline: config.deadline,
            namespace: config.namespace.clone(),
            config: config.servers.clone(),
            dialer: own,
        };
        Ok(Self { shared: Arc::new(shared) })
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

    /// Hears what is published on a channel, on a connection of its own. With a cluster any node hears what any other is told.
    #[must_use]
    pub fn subscribe(&self, channel: String) -> Subscription {
        Subscription::new(self.clone(), channel)
    }

    /// Sends one command and waits for its answer, within the configured deadline. The command names its key first, or none.
    ///
    /// # Errors
    /// [`StoreError`]; a command that met its deadline may have been carried out all the same.
    pub async fn call(&self, command: &Cmd) -> Result<Value, StoreError> {
        match &self.shared.servers {
            Servers::One(link) => link.call(command, false, self.shared.deadline).await,
            Servers::Cluster(cluster) => {
                cluster.call(command, slot_of_command(command), None, self.shared.deadline).await
            }
        }
    }

    /// How many servers it is connected to, or would be: one, or each primary of a cluster.
    #[must_use]
    pub fn servers(&self) -> usize {
        match &self.shared.servers {
            Servers::One(_) => 1,
            Servers::Cluster(cluster) => cluster.members(),
        }
    }

    /// The same as [`Redis::call`] for the server of this number, whatever the command's key. Which number a server of a cluster has
    /// changes when servers come or go.
    ///
    /// # Errors
    /// [`StoreError`]; `Down` too if there is none of this number.
    pub async fn call_server(&self, server: usize, command: &Cmd) -> Result<Value, StoreError> {
        match &self.shared.servers {
            Servers::One(link) => link.call(command, false, self.shared.deadline).await,
            Servers::Cluster(cluster) => cluster.call_member(server, command, self.shared.deadline).await,
        }
    }

    /// Runs a script by its digest, within the configured deadline. A server that doesn't know it is given it, in place. With a
    /// cluster, all keys must lie in one slot.
    ///
    /// # Errors
    /// [`StoreError`], as [`Redis::call`].
    pub async fn run(&self, script: &Script, keys: &[&[u8]], args: &[&[u8]]) -> Result<Value, StoreError> {
        let command = script.by_digest(keys, args);
        let deadline = self.shared.deadline;
        let link = match &self.shared.servers {
            Servers::One(link) => link,
            Servers::Cluster(cluster) => {
                let slot = keys.first().map(|key| slot_of(key));
                return cluster.call(&command, slot, Some(script), deadline).await;
            }
        };
        let ends = Instant::now() + deadline;
        match link.call(&command, false, deadline).await {
            Err(StoreError::Refused(error)) if error.kind() == ServerErrorKind::NoScript.into() => {
                let left = || ends.saturating_duration_since(Instant::now());
                link.call(&script.load(), false, left()).await?;
                link.call(&command, false, left()).await
            }
            other => other,
        }
    }
}

async fn link(target: Target, dialer: Dialer, health: Arc<StoreHealth>) -> Link {
    let link = Link::start(target, dialer, health, Arc::default());
    link.attempted().await;
    link
}
