//! Asks the nodes of a cluster which slots they serve.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{Cmd, FromRedisValue, Value};
use tokio::time::Instant;

use super::{ClusterState, Member, SlotMap, UNSERVED};
use crate::config::RedisNode;
use crate::store::link::Again;
use crate::store::outage::Outage;
use crate::store::slots::{SLOTS, SlotRange, read_slots};

/// What one node says of the cluster.
struct ClusterView {
    node: RedisNode,
    ranges: Vec<SlotRange>,
    /// Whether the cluster works as far as the node knows: one that is cut off from the others says no.
    works: bool,
}

impl ClusterState {
    /// Asks, and adopts the answer of a node for which the cluster works, if there is any.
    pub(super) async fn survey(&self) {
        match self.ask().await {
            Ok(view) => {
                let served = self.adopt(&view);
                let node = || view.node.clone();
                let outage = match served {
                    SLOTS if view.works => None,
                    // All slots are a node's, and it says that the cluster serves none.
                    SLOTS => Some(Outage::ClusterRefuses(node())),
                    _ => Some(Outage::ClusterDown(node(), served)),
                };
                self.report(&view.node, outage.as_ref());
            }
            Err(outage) => self.report(&self.seeds[0], Some(&outage)),
        }
    }

    async fn ask(&self) -> Result<ClusterView, Outage> {
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

    async fn ask_member(&self, member: &Member) -> Option<ClusterView> {
        // Whatever is wrong with this member, another one may know.
        let ends = Instant::now() + self.dialer.timeout;
        let ask = async |what| member.link.call(&cluster(what), false, Again::May, ends).await.ok();
        let (info, slots) = tokio::join!(ask("INFO"), ask("SLOTS"));
        view(&member.node, info?, &slots?)
    }

    async fn ask_seed(&self, seed: &RedisNode) -> Result<ClusterView, Outage> {
        let connection = self.dialer.dial(seed).await?;
        let ask = async |what| connection.ask(&cluster(what)).await;
        let both = async { tokio::join!(ask("INFO"), ask("SLOTS")) };
        let answers = tokio::time::timeout(self.dialer.timeout, both).await;
        let (info, slots) = answers.map_err(|_| Outage::Silent(seed.clone()))?;
        let disabled = |error: redis::RedisError| match error.to_string().contains("cluster support disabled") {
            true => Outage::NoCluster(seed.clone(), error),
            false => Outage::of(seed, error),
        };
        let (info, slots) = (info.map_err(disabled)?, slots.map_err(disabled)?);
        view(seed, info, &slots).ok_or_else(|| Outage::Unexpected(seed.clone()))
    }

    /// Makes the map anew, with the links that are there; returns how many slots are served.
    fn adopt(&self, view: &ClusterView) -> usize {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let present = self.map.load();
        let named = |member: &&Arc<Member>| member.named.swap(false, Ordering::Relaxed);
        let mut members: Vec<Arc<Member>> = present.members.iter().filter(named).cloned().collect();
        let mut slots: Box<[u16]> = vec![UNSERVED; SLOTS].into();
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
        let served = slots.iter().filter(|slot| **slot != UNSERVED).count();
        self.map.store(Arc::new(SlotMap { members, slots }));
        served
    }
}

fn cluster(subcommand: &str) -> Cmd {
    redis::cmd("CLUSTER").arg(subcommand).take()
}

fn view(node: &RedisNode, info: Value, slots: &Value) -> Option<ClusterView> {
    let info = String::from_redis_value(info).ok()?;
    Some(ClusterView { node: node.clone(), ranges: read_slots(slots, node)?, works: info.contains("cluster_state:ok") })
}
