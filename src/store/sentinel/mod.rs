//! Asking sentinels which server is the primary.

use arc_swap::ArcSwapOption;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{FromRedisValue, Value};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::dial::Dialer;
use super::outage::Outage;
use super::pipeline::Pipeline;
use crate::config::{RedisNode, RedisSentinel};

/// What sentinels announce when a replica is about to be promoted, when it has been, and when all is over.
const EVENTS: [&str; 3] = ["+failover-state-send-slaveof-noone", "+promoted-slave", "+switch-master"];
const LISTEN_PAUSE: Duration = Duration::from_secs(5);
/// How long the last answers are waited for.
const LAST_ANSWERS: Duration = Duration::from_millis(100);
/// Sentinels hear of a failover from one another within seconds.
const LONGEST_OUTDATED: Duration = Duration::from_secs(30);
/// A replica is promoted within a second or two.
const LONGEST_HANDOVER: Duration = Duration::from_secs(10);

/// The sentinels of one service.
pub(super) struct Sentinels {
    service: Arc<str>,
    sentinels: Vec<Sentinel>,
    dialer: Dialer,
    /// The last answers are waited for so long.
    last_answers: Duration,
    memory: Mutex<Memory>,
    /// Notified when a sentinel announces a step of a failover.
    announced: Arc<Notify>,
    _listeners: Vec<AbortOnDropHandle<()>>,
}

/// What is remembered between two questions.
#[derive(Default)]
struct Memory {
    /// The newest epoch that any of them has named, and the primary of it.
    epoch: u64,
    primary: Option<RedisNode>,
    /// Since when all that answer name older epochs.
    outdated_since: Option<Instant>,
    /// Since when the primary is being replaced.
    hands_over_since: Option<Instant>,
}

struct Sentinel {
    node: RedisNode,
    connection: Arc<ArcSwapOption<Pipeline>>,
}

/// The primary as one sentinel knows it.
struct PrimaryView {
    /// Grows with every failover that the sentinels agreed on.
    epoch: u64,
    primary: RedisNode,
    /// The replica that is to replace it is about to be promoted, or has been without the sentinels' knowing it yet.
    hands_over: bool,
    /// A sentinel has named a newer epoch before, and not all of them have answered now.
    is_outdated: bool,
}

impl Sentinels {
    /// `dialer` is the one of the servers that hold data.
    pub(super) fn new(config: &RedisSentinel, dialer: &Dialer) -> Self {
        let sentinel = |node: &RedisNode| Sentinel { node: node.clone(), connection: Arc::default() };
        let dialer = dialer.with_login(config.login.as_ref());
        let announced = Arc::<Notify>::default();
        let listener = |node: &RedisNode| {
            AbortOnDropHandle::new(tokio::spawn(listen(dialer.clone(), node.clone(), announced.clone())))
        };
        Self {
            service: config.service.clone(),
            sentinels: config.nodes.iter().map(sentinel).collect(),
            memory: Mutex::default(),
            _listeners: config.nodes.iter().map(listener).collect(),
            announced,
            dialer,
            last_answers: LAST_ANSWERS,
        }
    }

    /// Resolves when a sentinel has announced a step of a failover, for one task.
    pub(super) async fn announced(&self) {
        self.announced.notified().await;
    }

    /// The primary to connect to. Sentinels that have not heard of the last failover send nobody back to the primary before it.
    pub(super) async fn primary(&self) -> Result<RedisNode, Outage> {
        let view = self.newest().await?;
        if view.hands_over {
            return Err(Outage::HandsOver(view.primary));
        }
        let known = self.lock().primary.clone().filter(|_| view.is_outdated);
        Ok(known.unwrap_or(view.primary))
    }

    /// Why `current` must be left; `None` also when the sentinels can't say for certain.
    ///
    /// What is written to a primary after its replica was promoted is lost. So it is left a moment before. The sentinel that leads a
    /// failover names the new primary first. Until the others have heard of it they name the old one, which may still take writes.
    pub(super) async fn reason_to_leave(&self, current: &RedisNode) -> Option<Outage> {
        let view = self.newest().await.ok().filter(|view| !view.is_outdated)?;
        match view.primary == *current {
            true => view.hands_over.then(|| Outage::HandsOver(view.primary)),
            false => Some(Outage::Demoted(current.clone(), view.primary)),
        }
    }

    /// The newest of the answers, once all sentinels have answered. The last ones are waited for only a moment when more than half
    /// have answered and none has named a newer epoch before: one that was cut off may still name an old primary, and the one that
    /// leads a failover knows of it first.
    ///
    /// An older epoch counts only when all have answered, or when it lasts: then the sentinels have been set up anew.
    async fn newest(&self) -> Result<PrimaryView, Outage> {
        let known = self.lock().epoch;
        let mut answers: FuturesUnordered<_> = self.sentinels.iter().map(|sentinel| self.ask(sentinel)).collect();
        let mut newest: Option<PrimaryView> = None;
        let mut answered = 0;
        let mut trouble = None;
        let mut hands_over = Vec::new();
        let mut until = None;
        while let Some(answer) = next_before(until, &mut answers).await {
            match answer {
                Ok(view) => {
                    answered += 1;
                    hands_over.extend(view.hands_over.then(|| view.primary.clone()));
                    if newest.as_ref().is_none_or(|newest| view.epoch > newest.epoch) {
                        newest = Some(view);
                    }
                }
                Err(outage) => trouble = Some(outage),
            }
            if answered * 2 > self.sentinels.len() && newest.as_ref().is_some_and(|view| view.epoch >= known) {
                until.get_or_insert_with(|| Instant::now() + self.last_answers);
            }
        }
        let mut view = newest.ok_or_else(|| match trouble {
            Some(unknown @ Outage::UnknownService(_)) => unknown,
            Some(other) => Outage::NoSentinel(Box::new(other)),
            None => Outage::UnknownService(Box::from(&*self.service)),
        })?;
        view.hands_over = hands_over.contains(&view.primary);
        view.is_outdated = view.epoch < known && answered < self.sentinels.len();
        self.lock().judge(&mut view, Instant::now());
        Ok(view)
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, sentinel: &Sentinel) -> Result<PrimaryView, Outage> {
        let answer = tokio::time::timeout(self.dialer.timeout, self.exchange(sentinel)).await;
        let answer = answer.unwrap_or_else(|_| Err(Outage::Silent(sentinel.node.clone())));
        if matches!(answer, Err(Outage::Silent(_) | Outage::NoHandshake(_) | Outage::Broken(..))) {
            sentinel.connection.store(None);
        }
        answer
    }

    /// Connects, also if the answer is not waited for any more: the next question finds the connection.
    async fn connect(&self, sentinel: &Sentinel) -> Result<Pipeline, Outage> {
        let (dialer, node, connection) = (self.dialer.clone(), sentinel.node.clone(), sentinel.connection.clone());
        let dial = tokio::spawn(async move {
            let made = dialer.dial(&node).await?;
            connection.store(Some(Arc::new(made.clone())));
            Ok(made)
        });
        dial.await.unwrap_or_else(|_| Err(Outage::Silent(sentinel.node.clone())))
    }

    async fn exchange(&self, sentinel: &Sentinel) -> Result<PrimaryView, Outage> {
        let connection = match sentinel.connection.load_full() {
            Some(connection) => Pipeline::clone(&connection),
            None => self.connect(sentinel).await?,
        };
        // The epoch first: a failover between the two answers makes it too old for the address, never too new.
        let ask = async |what| connection.ask(redis::cmd("SENTINEL").arg(what).arg(&*self.service)).await;
        let (master, address) = futures_util::join!(ask("MASTER"), ask("GET-MASTER-ADDR-BY-NAME"));
        let answers = master.and_then(|master| Ok((master, address?))).map_err(|error| {
            let text = error.detail().unwrap_or_default();
            match text.contains("No such master") {
                true => Outage::UnknownService(Box::from(&*self.service)),
                false => Outage::of(&sentinel.node, error),
            }
        })?;
        read(answers.0, answers.1).ok_or_else(|| Outage::Unexpected(sentinel.node.clone()))
    }
}

impl Memory {
    /// Neither an old answer nor a failover that makes no progress counts for ever.
    fn judge(&mut self, view: &mut PrimaryView, now: Instant) {
        let lasts = |since: &mut Option<Instant>, is_so: &mut bool, longest| {
            *since = is_so.then(|| since.unwrap_or(now));
            *is_so = since.is_some_and(|since| now.duration_since(since) < longest);
        };
        lasts(&mut self.outdated_since, &mut view.is_outdated, LONGEST_OUTDATED);
        lasts(&mut self.hands_over_since, &mut view.hands_over, LONGEST_HANDOVER);
        if !view.is_outdated {
            self.epoch = view.epoch;
            self.primary = Some(view.primary.clone());
        }
    }
}

/// The next answer, if it comes in time.
async fn next_before<S: futures_util::Stream + Unpin>(until: Option<Instant>, answers: &mut S) -> Option<S::Item> {
    match until {
        None => answers.next().await,
        Some(until) => tokio::time::timeout_at(until, answers.next()).await.ok().flatten(),
    }
}

/// Listens to what a sentinel announces, for ever. One that can't be heard is asked every second all the same.
async fn listen(dialer: Dialer, node: RedisNode, announced: Arc<Notify>) {
    loop {
        if let Ok(mut connection) = dialer.listen(&node, &EVENTS).await {
            let mut events = connection.on_message();
            // It may have announced something before.
            announced.notify_one();
            while events.next().await.is_some() {
                announced.notify_one();
            }
        }
        tokio::time::sleep(LISTEN_PAUSE).await;
    }
}

/// `SENTINEL MASTER` gives the epoch. Its address is the old primary's on the sentinel that leads a failover, until that is
/// over, while the epoch is the new one already; `GET-MASTER-ADDR-BY-NAME` names the new primary as soon as it is one.
fn read(master: Value, address: Value) -> Option<PrimaryView> {
    let facts = HashMap::<String, String>::from_redis_value(master).ok()?;
    let (host, port) = <(String, u16)>::from_redis_value(address).ok().filter(|(host, _)| !host.is_empty())?;
    let primary = RedisNode { host: Arc::from(host), port };
    let state = facts.get("failover-state").map(String::as_str);
    let hands_over = matches!(state, Some("send_slaveof_noone" | "wait_promotion"));
    Some(PrimaryView { epoch: facts.get("config-epoch")?.parse().ok()?, primary, hands_over, is_outdated: false })
}

#[cfg(test)]
mod tests;
