//! One pipelined connection to one server, healed in the background.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::{ServerErrorKind, Value};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::dial::Dialer;
use super::error::StoreError;
use super::health::StoreHealth;
use super::late::LateAnswer;
use super::outage::{Outage, is_outage};
use super::pipeline::Pipeline;
use super::request::Request;
use super::sentinel::Sentinels;
use crate::backoff::Backoff;
use crate::config::RedisNode;

/// After so many calls in a row without an answer the connection is dropped and made anew.
const MISSES_BEFORE_RECONNECT: u32 = 3;
/// How often to check that the connection still answers, so that an idle instance notices an outage too, and that it still
/// leads to the primary that the sentinels name.
pub(super) const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// The pauses between attempts to connect.
pub(super) const RECONNECT: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));

/// Whether a command may be sent a second time when the connection breaks before its answer. The first may have been carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    May,
    MustNot,
}

/// Where a link leads.
pub(super) enum LinkTarget {
    /// To this server, whatever it is.
    Member(RedisNode),
    /// To this server, which must be a primary.
    Primary(RedisNode),
    /// To the server that the sentinels say is the primary.
    Elected(Sentinels),
}

impl LinkTarget {
    /// The server to connect to.
    pub(super) async fn node(&self) -> Result<RedisNode, Outage> {
        match self {
            Self::Member(node) | Self::Primary(node) => Ok(node.clone()),
            Self::Elected(sentinels) => sentinels.primary().await,
        }
    }

    /// Why `current` must be left, if the sentinels are certain that it is the primary no longer, or not for long.
    pub(super) async fn reason_to_leave(&self, current: &RedisNode) -> Option<Outage> {
        match self {
            Self::Elected(sentinels) => sentinels.reason_to_leave(current).await,
            Self::Member(_) | Self::Primary(_) => None,
        }
    }

    /// Resolves when the sentinels announce something.
    async fn announced(&self) {
        match self {
            Self::Elected(sentinels) => sentinels.announced().await,
            Self::Member(_) | Self::Primary(_) => std::future::pending().await,
        }
    }
}

/// A connection that is made again whenever it is lost, for as long as this lives. Right after a break a call waits for the first
/// attempt to connect; after that, while it is down, no call waits.
pub(super) struct Link {
    state: Arc<LinkState>,
    _task: AbortOnDropHandle<()>,
}

struct LinkState {
    target: LinkTarget,
    dialer: Dialer,
    connection: ArcSwapOption<Connection>,
    outage: Mutex<Option<LinkOutage>>,
    broken: Notify,
    /// Notified of a loss, too.
    watcher: Arc<Notify>,
    /// Whether an attempt to connect has ended since the start, or since a connection broke that had lasted.
    attempted: watch::Sender<bool>,
    health: Arc<StoreHealth>,
}

/// The last time that a connection was lost, and when there was one again.
#[derive(Clone, Copy)]
struct LinkOutage {
    lost: std::time::Instant,
    over: Option<std::time::Instant>,
}

/// A connection came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// Then.
    pub at: std::time::Instant,
    /// After so long.
    pub outage: Duration,
}

struct Connection {
    pipeline: Pipeline,
    node: RedisNode,
    made: Instant,
    /// Calls in a row that met their deadline. A late one that was sent on an earlier connection says nothing of this one.
    misses: AtomicU32,
}

impl Link {
    /// Starts to connect; `watcher` is notified when the connection is lost.
    pub(super) fn start(target: LinkTarget, dialer: Dialer, health: Arc<StoreHealth>, watcher: Arc<Notify>) -> Self {
        health.join();
        let state = Arc::new(LinkState {
            target,
            dialer,
            connection: ArcSwapOption::empty(),
            outage: Mutex::default(),
            broken: Notify::new(),
            watcher,
            attempted: watch::Sender::new(false),
            health,
        });
        let _task = AbortOnDropHandle::new(tokio::spawn(LinkState::heal(state.clone())));
        Self { state, _task }
    }

    /// Returns when the first attempt to connect has ended, one way or the other.
    pub(super) async fn attempted(&self) {
        // The sender lives as long as this link.
        let _ = self.state.attempted.subscribe().wait_for(|attempted| *attempted).await;
    }

    pub(super) fn target(&self) -> &LinkTarget {
        &self.state.target
    }

    /// Whether there is a connection at the moment.
    pub(super) fn is_up(&self) -> bool {
        self.state.connection.load().is_some()
    }

    /// When the connection was lost; `None` while there is one, and before there was any.
    pub(super) fn lost_at(&self) -> Option<std::time::Instant> {
        if self.is_up() { None } else { self.state.outage().map(|outage| outage.lost) }
    }

    /// The last time that a connection was made in place of one that was lost, and how long there was none.
    pub(super) fn recovery(&self) -> Option<Recovery> {
        let LinkOutage { lost, over } = (*self.state.outage())?;
        over.map(|at| Recovery { at, outage: at.saturating_duration_since(lost) })
    }

    /// Sends a request and waits for its answer. If it runs a script that the server doesn't know, the server is given it.
    /// `asking` announces that the answer of a node that is about to take over the key's slot is wanted.
    pub(super) async fn call(
        &self,
        request: &dyn Request,
        asking: bool,
        again: Again,
        ends: Instant,
    ) -> Result<Value, StoreError> {
        let mut answer = self.state.call(request, asking, ends).await;
        if matches!(answer, Err(StoreError::Down)) && again == Again::May && self.state.is_replaced() {
            answer = self.state.call(request, asking, ends).await;
        }
        match (answer, request.script()) {
            (Err(StoreError::Refused(error)), Some(script)) if error.kind() == ServerErrorKind::NoScript.into() => {
                self.state.call(&script.load(), false, ends).await.map_err(StoreError::without_answer)?;
                self.state.call(request, asking, ends).await
            }
            (answer, _) => answer,
        }
    }
}

impl LinkState {
    async fn heal(self: Arc<Self>) {
        let mut backoff = RECONNECT;
        loop {
            let attempt = self.connect().await;
            let made = Instant::now();
            if let Err(outage) = &attempt {
                self.health.unreachable(outage);
            }
            self.attempted.send_replace(true);
            if attempt.is_ok() {
                self.watch().await;
                // A server that accepts connections and drops them at once is not tried again at once.
                if made.elapsed() >= PROBE_INTERVAL {
                    backoff.reset();
                    continue;
                }
            }
            // What the sentinels say may be where to go now.
            let _ = tokio::time::timeout(backoff.pause(), self.target.announced()).await;
        }
    }

    async fn connect(&self) -> Result<(), Outage> {
        let node = self.target.node().await?;
        let pipeline = self.dialer.dial(&node).await?;
        if !matches!(self.target, LinkTarget::Member(_)) {
            let role = tokio::time::timeout(self.dialer.timeout, pipeline.ask(&redis::cmd("ROLE"))).await;
            // A server that does not answer this, for lack of the permission or of the command, is trusted.
            if role.map_err(|_| Outage::Silent(node.clone()))?.is_ok_and(|role| is_replica(&role)) {
                return Err(Outage::Replica(node));
            }
        }
        self.health.up(&node);
        let (made, misses) = (Instant::now(), AtomicU32::new(0));
        if let Some(outage) = &mut *self.outage() {
            outage.over = Some(std::time::Instant::now());
        }
        self.connection.store(Some(Arc::new(Connection { pipeline, node, made, misses })));
        Ok(())
    }

    /// Returns when the connection is gone.
    async fn watch(&self) {
        loop {
            tokio::select! {
                () = self.broken.notified() => return,
                () = self.target.announced() => {
                    self.follow().await;
                    continue;
                }
                () = tokio::time::sleep(PROBE_INTERVAL) => {}
            }
            // A failed probe reports itself through `give_up`.
            let ping = redis::cmd("PING");
            let probe = self.call(&ping, false, Instant::now() + self.dialer.timeout);
            let _ = tokio::join!(probe, self.follow());
        }
    }

    /// Leaves a server that is the primary no longer.
    async fn follow(&self) {
        let Some(current) = self.connection.load_full() else { return };
        if let Some(reason) = self.target.reason_to_leave(&current.node).await {
            self.give_up(&current, &reason);
        }
    }

    /// Whether the connection that broke has been replaced, or is being replaced.
    fn is_replaced(&self) -> bool {
        !*self.attempted.borrow() || self.connection.load().is_some()
    }

    /// The connection; in place of one that broke just now, the next one, if that is made in time.
    async fn connection(&self, ends: Instant) -> Option<Arc<Connection>> {
        let present = self.connection.load_full();
        if present.is_some() || *self.attempted.borrow() {
            return present;
        }
        let mut attempted = self.attempted.subscribe();
        let _ = tokio::time::timeout_at(ends, attempted.wait_for(|attempted| *attempted)).await;
        self.connection.load_full()
    }

    async fn call(&self, request: &dyn Request, asking: bool, ends: Instant) -> Result<Value, StoreError> {
        let Some(connection) = self.connection(ends).await else { return Err(StoreError::Down) };
        let mut sent = connection.pipeline.send(request, asking, Some(ends)).await;
        let in_time = match &mut sent {
            Some(answer) => answer.in_time().await,
            None => None,
        };
        match in_time {
            Some(Err(error)) if is_outage(&error) => {
                self.give_up(&connection, &Outage::of(&connection.node, error));
                Err(StoreError::Down)
            }
            Some(answer) => {
                if connection.misses.load(Ordering::Relaxed) != 0 {
                    connection.misses.store(0, Ordering::Relaxed);
                }
                answer.map_err(StoreError::Refused)
            }
            None => {
                if connection.misses.fetch_add(1, Ordering::Relaxed) + 1 >= MISSES_BEFORE_RECONNECT {
                    self.give_up(&connection, &Outage::Silent(connection.node.clone()));
                }
                Err(StoreError::Deadline(sent.map(LateAnswer)))
            }
        }
    }

    /// Drops a connection that failed, unless it has been replaced already.
    fn give_up(&self, failed: &Arc<Connection>, why: &Outage) {
        if self.connection.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, failed)) {
            *self.outage() = Some(LinkOutage { lost: std::time::Instant::now(), over: None });
        }
        let previous = self.connection.compare_and_swap(failed, None);
        if previous.as_ref().is_some_and(|current| Arc::ptr_eq(current, failed)) {
            self.health.lost(why);
            // Otherwise it is not tried again at once.
            if matches!(why, Outage::Broken(..)) && failed.made.elapsed() >= PROBE_INTERVAL {
                self.attempted.send_replace(false);
            }
            self.broken.notify_one();
            self.watcher.notify_one();
        }
    }

    fn outage(&self) -> MutexGuard<'_, Option<LinkOutage>> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LinkState {
    fn drop(&mut self) {
        self.health.leave(self.connection.load().is_some());
    }
}

fn is_replica(role: &Value) -> bool {
    matches!(role, Value::Array(parts) if matches!(parts.first(), Some(Value::BulkString(word)) if word == b"slave"))
}
