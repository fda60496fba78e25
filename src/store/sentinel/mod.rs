//! Asking sentinels which server is the primary.

use arc_swap::ArcSwapOption;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Pipeline, RedisResult, Value};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::dial::Dialer;
use super::outage::Outage;
use crate::config::{RedisNode, RedisSentinel};

/// The sentinels of one service.
pub(super) struct Sentinels {
    service: Arc<str>,
    sentinels: Vec<Sentinel>,
    dialer: Dialer,
    /// The newest epoch that any of them has named.
    epoch: AtomicU64,
}

struct Sentinel {
    node: RedisNode,
    connection: ArcSwapOption<MultiplexedConnection>,
}

/// The primary as one sentinel knows it.
struct PrimaryView {
    /// Grows with every failover that the sentinels agreed on.
    epoch: u64,
    primary: RedisNode,
    /// A sentinel has named a newer epoch before, and not all of them have answered now.
    is_outdated: bool,
}

impl Sentinels {
    /// `dialer` is the one of the servers that hold data.
    pub(super) fn new(config: &RedisSentinel, dialer: &Dialer) -> Self {
        let sentinel = |node: &RedisNode| Sentinel { node: node.clone(), connection: ArcSwapOption::empty() };
        Self {
            service: config.service.clone(),
            sentinels: config.nodes.iter().map(sentinel).collect(),
            dialer: dialer.with_login(config.login.as_ref()),
            epoch: AtomicU64::new(0),
        }
    }

    /// The primary to connect to.
    pub(super) async fn primary(&self) -> Result<RedisNode, Outage> {
        self.newest().await.map(|view| view.primary)
    }

    /// The primary that has replaced `current`; `None` also when the sentinels can't say for certain.
    ///
    /// The sentinel that leads a failover names the new primary first. Until the others have heard of it they name the
    /// old one, which may still take writes, and they must not send anybody back to it.
    pub(super) async fn successor(&self, current: &RedisNode) -> Option<RedisNode> {
        let view = self.newest().await.ok().filter(|view| !view.is_outdated)?;
        (view.primary != *current).then_some(view.primary)
    }

    /// The newest of the answers, once more than half of the sentinels have answered and none has named a newer epoch
    /// before, or no more will answer: one that was cut off may still name an old primary.
    ///
    /// An older epoch counts only when all have answered: then the sentinels have been set up anew.
    async fn newest(&self) -> Result<PrimaryView, Outage> {
        let known = self.epoch.load(Ordering::Relaxed);
        let mut answers: FuturesUnordered<_> = self.sentinels.iter().map(|sentinel| self.ask(sentinel)).collect();
        let mut newest: Option<PrimaryView> = None;
        let mut answered = 0;
        let mut trouble = None;
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(view) => {
                    answered += 1;
                    if newest.as_ref().is_none_or(|newest| view.epoch > newest.epoch) {
                        newest = Some(view);
                    }
                }
                Err(outage) => trouble = Some(outage),
            }
            if answered * 2 > self.sentinels.len() && newest.as_ref().is_some_and(|view| view.epoch >= known) {
                break;
            }
        }
        let mut view = newest.ok_or_else(|| match trouble {
            Some(unknown @ Outage::UnknownService(_)) => unknown,
            Some(other) => Outage::NoSentinel(Box::new(other)),
            None => Outage::UnknownService(Box::from(&*self.service)),
        })?;
        view.is_outdated = view.epoch < known && answered < self.sentinels.len();
        if !view.is_outdated {
            self.epoch.store(view.epoch, Ordering::Relaxed);
        }
        Ok(view)
    }

    async fn ask(&self, sentinel: &Sentinel) -> Result<PrimaryView, Outage> {
        let answer = tokio::time::timeout(self.dialer.timeout, self.exchange(sentinel)).await;
        let answer = answer.unwrap_or_else(|_| Err(Outage::Silent(sentinel.node.clone())));
        if matches!(answer, Err(Outage::Silent(_) | Outage::NoHandshake(_) | Outage::Broken(..))) {
            sentinel.connection.store(None);
        }
        answer
    }

    async fn exchange(&self, sentinel: &Sentinel) -> Result<PrimaryView, Outage> {
        let mut connection = match sentinel.connection.load_full() {
            Some(connection) => MultiplexedConnection::clone(&connection),
            None => {
                let made = self.dialer.dial(&sentinel.node).await?;
                sentinel.connection.store(Some(Arc::new(made.clone())));
                made
            }
        };
        // The epoch first: a failover between the two answers makes it too old for the address, never too new.
        let mut questions = Pipeline::with_capacity(2);
        questions.cmd("SENTINEL").arg("MASTER").arg(&*self.service);
        questions.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&*self.service);
        let answers = connection.send_packed_commands(&questions, 0, 2).await;
        let answers = answers.and_then(|both| both.into_iter().map(Value::extract_error).collect::<RedisResult<_>>());
        let answers: Vec<Value> = answers.map_err(|error| {
            let text = error.detail().unwrap_or_default();
            match text.contains("No such master") {
                true => Outage::UnknownService(Box::from(&*self.service)),
                false => Outage::of(&sentinel.node, error),
            }
        })?;
        read(answers).ok_or_else(|| Outage::Unexpected(sentinel.node.clone()))
    }
}

/// `SENTINEL MASTER` gives the epoch. Its address is the old primary's on the sentinel that leads a failover, until that is
/// over, while the epoch is the new one already; `GET-MASTER-ADDR-BY-NAME` names the new primary as soon as it is one.
fn read(answers: Vec<Value>) -> Option<PrimaryView> {
    let [master, address] = <[Value; 2]>::try_from(answers).ok()?;
    let facts = HashMap::<String, String>::from_redis_value(master).ok()?;
    let (host, port) = <(String, u16)>::from_redis_value(address).ok().filter(|(host, _)| !host.is_empty())?;
    let primary = RedisNode { host: Arc::from(host), port };
    Some(PrimaryView { epoch: facts.get("config-epoch")?.parse().ok()?, primary, is_outdated: false })
}

#[cfg(test)]
mod tests;
