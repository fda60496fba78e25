//! A Redis Cluster: one link per primary, a table of slots, and the cluster's redirections followed.
//!
//! A node that is down fails the calls for its slots at once, and those of no other node.

mod survey;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use redis::{ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::dial::Dialer;
use super::error::StoreError;
use super::health::StoreHealth;
use super::link::{Again, Link, LinkTarget, Recovery};
use super::outage::Outage;
use super::request::Request;
use super::slots::{SLOTS, read_address, slot_of};
use crate::backoff::Backoff;
use crate::config::RedisNode;

/// How often the table of slots is read again; more often while a node or a slot is unreachable. (Redirections correct it at
/// once.)
const SURVEY_INTERVAL: Duration = Duration::from_secs(10);
const UNSOUND_INTERVAL: Duration = Duration::from_millis(250);
/// Redirections may ask for it sooner, but not more often than this.
const MIN_INTERVAL: Duration = Duration::from_millis(50);
/// A call follows so many redirections: enough for a slot that moves twice, too few for two nodes that blame each other.
const MAX_REDIRECTIONS: usize = 8;
/// The pauses before a call is sent again whose keys are being moved.
const MOVING: Backoff = Backoff::new(Duration::from_millis(2), Duration::from_millis(8));
/// In place of the index of a node: no node serves the slot.
const UNSERVED: u16 = u16::MAX;

/// The connections to all primaries of a cluster, kept for as long as this lives.
pub(super) struct Cluster {
    state: Arc<ClusterState>,
    _task: AbortOnDropHandle<()>,
}

struct ClusterState {
    seeds: Vec<RedisNode>,
    dialer: Dialer,
    health: Arc<StoreHealth>,
    map: ArcSwap<SlotMap>,
    /// Held while a new map is made from the present one.
    changing: Mutex<()>,
    /// The map may be out of date.
    stale: Arc<Notify>,
    is_whole: AtomicBool,
}

/// The primaries, and which of them serves each slot.
#[derive(Clone)]
struct SlotMap {
    members: Vec<Arc<Member>>,
    slots: Box<[u16]>,
}

struct Member {
    node: RedisNode,
    link: Link,
    /// It was named by a redirection since the last survey, so it is needed although it may serve no slot yet.
    named: AtomicBool,
}

impl Cluster {
    /// Returns after the first attempt to find and reach all primaries.
    pub(super) async fn open(seeds: &[RedisNode], dialer: Dialer, health: Arc<StoreHealth>) -> Self {
        health.join();
        let map = SlotMap { members: Vec::new(), slots: vec![UNSERVED; SLOTS].into() };
        let state = Arc::new(ClusterState {
            seeds: seeds.to_vec(),
            dialer,
            health,
            map: ArcSwap::from_pointee(map),
            changing: Mutex::new(()),
            stale: Arc::default(),
            is_whole: AtomicBool::new(false),
        });
        state.survey().await;
        let members = state.map.load_full();
        join_all(members.members.iter().map(|member| member.link.attempted())).await;
        let _task = AbortOnDropHandle::new(tokio::spawn(ClusterState::run(state.clone())));
        Self { state, _task }
    }

    /// Whether any node answers at the moment.
    pub(super) fn is_up(&self) -> bool {
        self.state.map.load().members.iter().any(|member| member.link.is_up())
    }

    /// When the last connection to any node was lost; `None` while there is one, and before there was any.
    pub(super) fn lost_at(&self) -> Option<std::time::Instant> {
        let map = self.state.map.load();
        if self.is_up() { None } else { map.members.iter().filter_map(|member| member.link.lost_at()).max() }
    }

    /// The last time that a connection to any node came back.
    pub(super) fn recovery(&self) -> Option<Recovery> {
        let map = self.state.map.load();
        map.members.iter().filter_map(|member| member.link.recovery()).max_by_key(|recovery| recovery.at)
    }

    /// The nodes to be reached, those that answer at the moment first.
    pub(super) fn nodes(&self) -> Vec<RedisNode> {
        let map = self.state.map.load();
        let (up, down): (Vec<_>, Vec<_>) = map.members.iter().partition(|member| member.link.is_up());
        up.into_iter().chain(down).map(|member| member.node.clone()).chain(self.state.seeds.iter().cloned()).collect()
    }

    /// How many primaries it has links to.
    pub(super) fn members(&self) -> usize {
        self.state.map.load().members.len()
    }

    /// Sends a request to one of them.
    pub(super) async fn call_member(
        &self,
        at: usize,
        request: &dyn Request,
        ends: Instant,
    ) -> Result<Value, StoreError> {
        let member = self.state.map.load().members.get(at).cloned().ok_or(StoreError::Down)?;
        member.link.call(request, false, Again::May, ends).await
    }

    /// Sends a request to the node that serves the slot of a key.
    pub(super) async fn call_owner(
        &self,
        key: &str,
        request: &dyn Request,
        ends: Instant,
    ) -> Result<Value, StoreError> {
        let member = self.state.owner(Some(slot_of(key.as_bytes()))).ok_or(StoreError::Down)?;
        member.link.call(request, false, Again::MustNot, ends).await
    }

    /// Sends a request to the node that serves its slot, or to any if it has none.
    pub(super) async fn call(&self, request: &dyn Request, again: Again, ends: Instant) -> Result<Value, StoreError> {
        let slot = request.key().map(slot_of);
        let left = || ends.saturating_duration_since(Instant::now());
        let mut member = self.state.owner(slot).ok_or(StoreError::Down)?;
        let mut asking = false;
        let mut redirections = 0;
        let mut backoff = MOVING;
        while !left().is_zero() {
            let error = match member.link.call(request, asking, again, ends).await {
                Err(StoreError::Refused(error)) => error,
                other => return other,
            };
            match error.kind() {
                ErrorKind::Server(kind @ (ServerErrorKind::Moved | ServerErrorKind::Ask)) => {
                    redirections += 1;
                    if redirections > MAX_REDIRECTIONS {
                        return Err(StoreError::Refused(error));
                    }
                    asking = kind == ServerErrorKind::Ask;
                    member = self.state.redirected(&error, &member.node).ok_or(StoreError::Refused(error))?;
                    // A node that was unknown until now is not connected yet.
                    let attempted = tokio::time::timeout_at(ends, member.link.attempted()).await;
                    attempted.map_err(|_| StoreError::Deadline(None))?;
                }
                // Some of its keys are here and some there, for the moment.
                ErrorKind::Server(ServerErrorKind::TryAgain) => {
                    tokio::time::sleep(backoff.pause().min(left())).await;
                    asking = false;
                    member = self.state.owner(slot).ok_or(StoreError::Down)?;
                }
                ErrorKind::Server(ServerErrorKind::ClusterDown) => {
                    self.state.stale.notify_one();
                    return Err(StoreError::Down);
                }
                _ => return Err(StoreError::Refused(error)),
            }
        }
        Err(StoreError::Deadline(None))
    }
}

impl ClusterState {
    /// Keeps the table of slots up to date.
    async fn run(self: Arc<Self>) {
        loop {
            let is_sound = self.is_whole.load(Ordering::Relaxed)
                && self.map.load().members.iter().all(|member| member.link.is_up());
            let interval = if is_sound { SURVEY_INTERVAL } else { UNSOUND_INTERVAL };
            let interval = interval.mul_f64(0.75 + fastrand::f64() / 2.0);
            let _ = tokio::time::timeout(interval, self.stale.notified()).await;
            self.survey().await;
            tokio::time::sleep(MIN_INTERVAL).await;
        }
    }

    /// The node that serves a slot, or any that answers.
    fn owner(&self, slot: Option<u16>) -> Option<Arc<Member>> {
        let map = self.map.load();
        let index = match slot {
            Some(slot) => usize::from(map.slots[usize::from(slot)]),
            None => map.members.iter().position(|member| member.link.is_up())?,
        };
        map.members.get(index).cloned()
    }

    /// The node that a MOVED or ASK names. MOVED is trusted at once, for its slot.
    fn redirected(&self, error: &RedisError, from: &RedisNode) -> Option<Arc<Member>> {
        let (address, slot) = error.redirect_node()?;
        let node = read_address(address, from)?;
        let moved = error.kind() == ServerErrorKind::Moved.into();
        tracing::debug!(slot, to = %node, from = %from, moved, "redirected");
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let present = self.map.load();
        let known = present.members.iter().position(|member| member.node == node);
        if let Some(index) = known.filter(|_| !moved) {
            present.members[index].named.store(true, Ordering::Relaxed);
            return Some(present.members[index].clone());
        }
        let mut map = SlotMap::clone(&present);
        let index = known.unwrap_or_else(|| {
            map.members.push(self.member(node));
            map.members.len() - 1
        });
        let member = map.members[index].clone();
        member.named.store(true, Ordering::Relaxed);
        if moved {
            *map.slots.get_mut(usize::from(slot))? = u16::try_from(index).ok()?;
            self.stale.notify_one();
        }
        self.map.store(Arc::new(map));
        Some(member)
    }

    fn member(&self, node: RedisNode) -> Arc<Member> {
        let target = LinkTarget::Member(node.clone());
        let link = Link::start(target, self.dialer.clone(), self.health.clone(), self.stale.clone());
        Arc::new(Member { node, link, named: AtomicBool::new(false) })
    }

    /// Reports whether all slots are served.
    fn report(&self, node: &RedisNode, outage: Option<&Outage>) {
        match (outage, self.is_whole.swap(outage.is_none(), Ordering::Relaxed)) {
            (None, false) => self.health.up(node),
            (Some(outage), true) => self.health.lost(outage),
            (Some(outage), false) => self.health.unreachable(outage),
            (None, true) => {}
        }
    }
}

impl Drop for ClusterState {
    fn drop(&mut self) {
        self.health.leave(*self.is_whole.get_mut());
    }
}
