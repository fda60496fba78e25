//! Asking the nodes of a cluster who serves what.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, RedisResult, Value};

use super::{Map, Member, NOBODY, State};
use crate::config::RedisNode;
use crate::store::outage::Outage;
use crate::store::slots::{Range, SLOTS, read_slots};

/// What one node says of the cluster.
struct View {
    node: RedisNode,
    ranges: Vec<Range>,
    /// Whether the node takes the cluster for one that works: one that is cut off from the others does not.
    works: bool,
}

impl State {
    /// Asks, and adopts the answer: the one of a node that takes the cluster for a working one, if there is any.
    pub(super) async fn survey(&self) {
        match self.look().await {
            Ok(view) => {
                let served = self.adopt(&view);
                let down = || Outage::ClusterDown(view.node.clone(), served);
                self.report((!view.works || served < SLOTS).then(down).as_ref());
            }
            Err(outage) => self.report(Some(&outage)),
        }
    }

    async fn look(&self) -> Result<View, Outage> {
        let members = self.map.load_full();
        let mut up: Vec<&Arc<Member>> = members.members.iter().filter(|member| member.link.is_up()).collect();
        fastrand::shuffle(&mut up);
        let mut doubtful = None;
        for member in up {
            match self.ask_member(member).await {
                Some(view) if view.works => return Ok(view),
                view => doubtful = doubtful.or(view),
            }
        }
        // Connections to nodes that have none are made for the question alone; those that hold a link heal by themselves.
        let mut seeds: FuturesUnordered<_> = self.seeds.iter().map(|seed| self.ask_seed(seed)).collect();
        let mut trouble = None;
        while let Some(answer) = seeds.next().await {
            match answer {
                Ok(view) if view.works => return Ok(view),
                Ok(view) => doubtful = doubtful.or(Some(view)),
                Err(outage) => trouble = Some(outage),
            }
        }
        doubtful.ok_or_else(|| match trouble {
            Some(nothing @ Outage::NoCluster(..)) => nothing,
            Some(other) => Outage::NoNode(Box::new(other)),
            None => unreachable!("a cluster has at least one seed, and each is a view or a trouble"),
        })
    }

    async fn ask_member(&self, member: &Member) -> Option<View> {
        // Whatever is wrong with this member, another one may know.
        let ask = async |command: Cmd| member.link.call(&command, false, self.dialer.timeout()).await.ok();
        let (info, slots) = tokio::join!(ask(info()), ask(slots()));
        view(&member.node, info?, &slots?)
    }

    async fn ask_seed(&self, seed: &RedisNode) -> Result<View, Outage> {
        let connection = self.dialer.dial(seed).await?;
        let both = async { tokio::join!(say(connection.clone(), info()), say(connection.clone(), slots())) };
        let answers = tokio::time::timeout(self.dialer.timeout(), both).await;
        let (info, slots) = answers.map_err(|_| Outage::Silent(seed.clone()))?;
        let disabled = |error: redis::RedisError| match error.to_string().contains("cluster support disabled") {
            true => Outage::NoCluster(seed.clone(), error),
            false => Outage::of(seed, error),
        };
        let (info, slots) = (info.map_err(disabled)?, slots.map_err(disabled)?);
        view(seed, info, &slots).ok_or_else(|| Outage::Unexpected(seed.clone()))
    }

    /// Makes the map anew, with the links that are there; returns how many slots are served.
    fn adopt(&self, view: &View) -> usize {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let present = self.map.load();
        let named = |member: &&Arc<Member>| member.named.swap(false, Ordering::Relaxed);
        let mut members: Vec<Arc<Member>> = present.members.iter().filter(named).cloned().collect();
        let mut slots: Box<[u16]> = vec![NOBODY; SLOTS].into();
        for range in &view.ranges {
            let index = members.iter().position(|member| member.node == range.node).unwrap_or_else(|| {
                let known = present.members.iter().find(|member| member.node == range.node);
                members.push(known.cloned().unwrap_or_else(|| self.member(range.node.clone())));
                members.len() - 1
            });
            if let (Ok(index), Some(part)) =
                (u16::try_from(index), slots.get_mut(usize::from(range.first)..=usize::from(range.last)))
            {
                part.fill(index);
            }
        }
        let served = slots.iter().filter(|slot| **slot != NOBODY).count();
        self.map.store(Arc::new(Map { members, slots }));
        served
    }
}

fn info() -> Cmd {
    let mut command = redis::cmd("CLUSTER");
    command.arg("INFO");
    command
}

fn slots() -> Cmd {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    command
}

async fn say(mut connection: MultiplexedConnection, command: Cmd) -> RedisResult<Value> {
    connection.send_packed_command(&command).await.and_then(Value::extract_error)
}

fn view(node: &RedisNode, info: Value, slots: &Value) -> Option<View> {
    let info = String::from_redis_value(info).ok()?;
    Some(View { node: node.clone(), ranges: read_slots(slots, node)?, works: info.contains("cluster_state:ok") })
}
