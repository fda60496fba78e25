//! Asking sentinels which server is the primary.

use arc_swap::ArcSwapOption;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Value};
use std::collections::HashMap;
use std::sync::Arc;

use super::dial::{Dialer, ask};
use super::outage::Outage;
use crate::config::{RedisNode, RedisSentinel};

/// The sentinels of one service.
pub(super) struct Sentinels {
    service: Arc<str>,
    sentinels: Vec<Sentinel>,
    dialer: Dialer,
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
}

impl Sentinels {
    /// `dialer` is the one of the servers that hold data.
    pub(super) fn new(config: &RedisSentinel, dialer: &Dialer) -> Self {
        let sentinel = |node: &RedisNode| Sentinel { node: node.clone(), connection: ArcSwapOption::empty() };
        Self {
            service: config.service.clone(),
            sentinels: config.nodes.iter().map(sentinel).collect(),
            dialer: dialer.with_login(config.login.as_ref()),
        }
    }

    /// The primary by the newest of the answers, once more than half of the sentinels have answered, or no more will: one
    /// that was cut off may still name an old one.
    pub(super) async fn primary(&self) -> Result<RedisNode, Outage> {
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
            if answered * 2 > self.sentinels.len() {
                break;
            }
        }
        newest.map(|view| view.primary).ok_or_else(|| match trouble {
            Some(unknown @ Outage::UnknownService(_)) => unknown,
            Some(other) => Outage::NoSentinel(Box::new(other)),
            None => Outage::UnknownService(Box::from(&*self.service)),
        })
    }

    async fn ask(&self, sentinel: &Sentinel) -> Result<PrimaryView, Outage> {
        let answer = tokio::time::timeout(self.dialer.timeout(), self.exchange(sentinel)).await;
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
        let mut question = redis::cmd("SENTINEL");
        question.arg("MASTER").arg(&*self.service);
        let answer = ask(&mut connection, &question).await.map_err(|error| {
            let text = error.detail().unwrap_or_default();
            match text.contains("No such master") {
                true => Outage::UnknownService(Box::from(&*self.service)),
                false => Outage::of(&sentinel.node, error),
            }
        })?;
        read(answer).ok_or_else(|| Outage::Unexpected(sentinel.node.clone()))
    }
}

fn read(answer: Value) -> Option<PrimaryView> {
    let facts = HashMap::<String, String>::from_redis_value(answer).ok()?;
    let host = facts.get("ip").filter(|host| !host.is_empty())?;
    let primary = RedisNode { host: Arc::from(host.as_str()), port: facts.get("port")?.parse().ok()? };
    Some(PrimaryView { epoch: facts.get("config-epoch")?.parse().ok()?, primary })
}
