//! Hearing what is published on one channel: a connection of its own, made again whenever it is lost or leads to the wrong server.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use redis::aio::{PubSubSink, PubSubStream};
use tokio::time::timeout;

use super::outage::Outage;
use super::sentinel::Sentinels;
use super::{Redis, Servers};
use crate::config::{RedisNode, RedisServers};

/// The connection is asked this often whether it still answers, and whether it still leads to a server that hears everything.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// The first and the longest pause between attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Messages handed over at one time.
const BATCH: usize = 1_024;

/// What a subscription has to tell.
#[derive(Debug)]
pub enum News {
    /// From here on messages are heard; what was said before may have been missed.
    Begins,
    /// These were published, in this order.
    Messages(Vec<Vec<u8>>),
    /// From here on no message is heard, or the attempt to change that has failed.
    Lost,
}

/// The messages of one channel. A message can be lost, whenever the connection is.
pub struct Subscription {
    redis: Redis,
    channel: String,
    sentinels: Option<Sentinels>,
    heard: Option<Ear>,
    pause: Duration,
    complained: bool,
}

struct Ear {
    node: RedisNode,
    sink: PubSubSink,
    stream: PubSubStream,
}

impl Subscription {
    pub(super) fn new(redis: Redis, channel: String) -> Self {
        let sentinels = match &redis.shared.config {
            RedisServers::Sentinel(sentinel) => Some(Sentinels::new(sentinel, &redis.shared.dialer)),
            RedisServers::Single(_) | RedisServers::Cluster(_) => None,
        };
        Self { redis, channel, sentinels, heard: None, pause: Duration::ZERO, complained: false }
    }

    /// Waits for the next thing to tell, for as long as that takes.
    pub async fn next(&mut self) -> News {
        let Some(mut ear) = self.heard.take() else {
            tokio::time::sleep(self.pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            return if self.connect().await { News::Begins } else { News::Lost };
        };
        let first = loop {
            if let Ok(first) = timeout(PROBE_INTERVAL, ear.stream.next()).await {
                break first;
            }
            // A message doesn't wait for the probe: with Sentinel that may take long.
            tokio::select! {
                biased;
                first = ear.stream.next() => break first,
                sound = self.is_sound(&ear.node, ear.sink.clone()) => if !sound {
                    return News::Lost;
                }
            }
        };
        let Some(first) = first else { return News::Lost };
        let mut messages = vec![first.get_payload_bytes().to_vec()];
        while messages.len() < BATCH
            && let Some(Some(more)) = ear.stream.next().now_or_never()
        {
            messages.push(more.get_payload_bytes().to_vec());
        }
        self.heard = Some(ear);
        News::Messages(messages)
    }

    async fn connect(&mut self) -> bool {
        match self.attempt().await {
            Ok(ear) => {
                tracing::debug!(node = %ear.node, channel = self.channel, "listening");
                self.heard = Some(ear);
                self.pause = BACKOFF.0;
                self.complained = false;
                true
            }
            Err(outage) => {
                // Those who decide on requests tell of an outage; that only this can't be done is told here.
                if matches!(outage, Outage::Refuses(..)) && !std::mem::replace(&mut self.complained, true) {
                    let cause = std::error::Error::source(&outage).map(ToString::to_string);
                    tracing::warn!(
                        cause,
                        channel = self.channel,
                        "{outage}: changes of tokens reach open calls some seconds later, and no token is admitted while Redis is away"
                    );
                }
                self.pause = (self.pause * 2).clamp(BACKOFF.0, BACKOFF.1);
                false
            }
        }
    }

    async fn attempt(&self) -> Result<Ear, Outage> {
        let shared = &self.redis.shared;
        let mut last = None;
        for node in self.nodes().await? {
            match shared.dialer.listen(&node, &self.channel).await {
                Ok(connection) => {
                    let (sink, stream) = connection.split();
                    return Ok(Ear { node, sink, stream });
                }
                Err(outage) => last = Some(outage),
            }
        }
        let nobody =
            || Outage::Unreachable(RedisNode { host: "".into(), port: 0 }, std::io::ErrorKind::NotFound.into());
        Err(last.unwrap_or_else(nobody))
    }

    /// Where everything can be heard, best first.
    async fn nodes(&self) -> Result<Vec<RedisNode>, Outage> {
        match (&self.redis.shared.config, &self.redis.shared.servers, &self.sentinels) {
            (RedisServers::Sentinel(_), _, Some(sentinels)) => Ok(vec![sentinels.primary().await?]),
            (RedisServers::Single(node), ..) => Ok(vec![node.clone()]),
            (_, Servers::Cluster(cluster), _) => Ok(cluster.nodes()),
            (RedisServers::Cluster(_) | RedisServers::Sentinel(_), ..) => Ok(Vec::new()),
        }
    }

    /// Whether the connection still answers and leads to a server that hears everything.
    async fn is_sound(&self, node: &RedisNode, mut sink: PubSubSink) -> bool {
        let patience = self.redis.shared.dialer.timeout();
        if !matches!(timeout(patience, sink.ping::<redis::Value>()).await, Ok(Ok(_))) {
            return false;
        }
        // Without an answer by the sentinels nothing is known.
        self.nodes().await.map_or(true, |nodes| nodes.contains(node))
    }
}
