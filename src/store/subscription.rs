//! Listens on one channel: a connection of its own, made again whenever it is lost or leads to the wrong server.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use redis::aio::{PubSubSink, PubSubStream};
use tokio::time::timeout;

use super::client::{Redis, Servers};
use super::link::{PROBE_INTERVAL, RECONNECT};
use super::outage::Outage;
use crate::backoff::Backoff;
use crate::config::RedisNode;

/// Messages handed over at one time.
const MAX_BATCH: usize = 1_024;

/// What happens on a subscription.
#[derive(Debug)]
pub enum ChannelEvent {
    /// From here on messages arrive; earlier ones may have been missed.
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
    connection: Option<PubSubConnection>,
    /// Waited out before the next attempt to connect.
    pause: Duration,
    backoff: Backoff,
    warned: bool,
}

struct PubSubConnection {
    node: RedisNode,
    sink: PubSubSink,
    stream: PubSubStream,
}

impl Redis {
    /// Listens on a channel, on a connection of its own. In a cluster every node passes on what is published on any other.
    #[must_use]
    pub fn subscribe(&self, channel: String) -> Subscription {
        let (connection, pause, backoff) = (None, Duration::ZERO, RECONNECT);
        Subscription { redis: self.clone(), channel, connection, pause, backoff, warned: false }
    }
}

impl Subscription {
    /// Waits for the next event, for as long as that takes.
    pub async fn next(&mut self) -> ChannelEvent {
        let Some(mut connection) = self.connection.take() else {
            tokio::time::sleep(self.pause).await;
            return if self.connect().await { ChannelEvent::Begins } else { ChannelEvent::Lost };
        };
        let first = loop {
            if let Ok(first) = timeout(PROBE_INTERVAL, connection.stream.next()).await {
                break first;
            }
            // A message doesn't wait for the probe: with Sentinel that may take long.
            tokio::select! {
                biased;
                first = connection.stream.next() => break first,
                sound = self.is_sound(&connection.node, connection.sink.clone()) => if !sound {
                    return ChannelEvent::Lost;
                }
            }
        };
        let Some(first) = first else { return ChannelEvent::Lost };
        let mut messages = vec![first.get_payload_bytes().to_vec()];
        while messages.len() < MAX_BATCH
            && let Some(Some(more)) = connection.stream.next().now_or_never()
        {
            messages.push(more.get_payload_bytes().to_vec());
        }
        self.connection = Some(connection);
        ChannelEvent::Messages(messages)
    }

    async fn connect(&mut self) -> bool {
        match self.attempt().await {
            Ok(connection) => {
                tracing::debug!(node = %connection.node, channel = self.channel, "listening");
                self.connection = Some(connection);
                self.backoff.reset();
                self.pause = self.backoff.pause();
                self.warned = false;
                true
            }
            Err(outage) => {
                // An outage is reported by the connections that decide on requests; that only this fails is reported here.
                if matches!(outage, Outage::Refuses(..)) && !std::mem::replace(&mut self.warned, true) {
                    let cause = std::error::Error::source(&outage).map(ToString::to_string);
                    tracing::warn!(
                        cause,
                        channel = self.channel,
                        "{outage}: changes of tokens reach open calls some seconds later, and no token is admitted while Redis is away"
                    );
                }
                self.pause = self.backoff.pause();
                false
            }
        }
    }

    async fn attempt(&self) -> Result<PubSubConnection, Outage> {
        let shared = &self.redis.shared;
        let mut attempt =
            Err(Outage::Unreachable(RedisNode { host: "".into(), port: 0 }, std::io::ErrorKind::NotFound.into()));
        // The servers that receive every message, best first.
        let nodes = match &shared.servers {
            Servers::One(link) => vec![link.target().node().await?],
            Servers::Cluster(cluster) => cluster.nodes(),
        };
        for node in nodes {
            attempt = shared.dialer.listen(&node, &[&self.channel]).await.map(|connection| {
                let (sink, stream) = connection.split();
                PubSubConnection { node, sink, stream }
            });
            if attempt.is_ok() {
                break;
            }
        }
        attempt
    }

    /// Whether the connection still answers and leads to a server that receives every message.
    async fn is_sound(&self, node: &RedisNode, mut sink: PubSubSink) -> bool {
        let shared = &self.redis.shared;
        let answers = matches!(timeout(shared.dialer.timeout, sink.ping::<redis::Value>()).await, Ok(Ok(_)));
        answers
            && match &shared.servers {
                Servers::One(link) => link.target().reason_to_leave(node).await.is_none(),
                Servers::Cluster(cluster) => cluster.nodes().contains(node),
            }
    }
}
