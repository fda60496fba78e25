//! The events that may happen to an installation, and how they are caused.

use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;
use rustix::process::Signal;

use super::chaos::{PLACES, Run};
use super::judge::Span;
use super::law::Loss;
use crate::support::eventually;
use crate::support::proxy::{Passing, Proxy};
use crate::support::redis::RedisServer;
use crate::support::topology::Watched;

/// A connection that broke may be taken for a good one until the next probe, a second later.
const UNNOTICED: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// An instance is killed.
    Killed,
    /// An instance is ended, as for a new version.
    Ended,
    /// An instance reads its configuration again, in which other plans and routes have changed.
    Reloads,
    /// Something happens to Redis, or to the way to it.
    Outage(Trouble),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It dies, and comes back with all that it knew.
    Dies,
    /// It dies, and comes back with the tokens alone.
    Forgets,
    Pauses,
    /// Nothing passes, for one instance or for all.
    IsCutOff,
    /// Questions pass and answers don't, for one instance or for all.
    IsUnheard,
    /// The primary dies, and the replica takes over.
    FailsOver,
}

/// One way to run Redis.
pub trait Installation {
    /// The events that may happen to it.
    fn events(&self) -> Vec<Event>;

    /// Of each place: which Redis its instance uses, as keys of `store.redis`.
    fn stores(&self) -> Vec<String>;

    /// Brings trouble about, and its end; what Redis lost by it.
    async fn suffers(&mut self, trouble: Trouble, random: &mut Rng, run: &Run) -> Option<Loss>;
}

impl Event {
    pub fn any(random: &mut Rng, from: &[Self]) -> Self {
        from[random.usize(..from.len())]
    }

    pub async fn happens(self, run: &mut Run, installation: &mut impl Installation) {
        let place = run.random.usize(..PLACES);
        match self {
            Self::Killed => run.replaces(place, Signal::KILL).await,
            Self::Ended => run.replaces(place, Signal::TERM).await,
            Self::Reloads => run.reloads(place).await,
            Self::Outage(trouble) => {
                run.describe(format!("Redis {trouble:?}"));
                let from = run.fleet.now();
                // Until it is over, whatever is told of a moment is told of this outage.
                run.facts.outages.push(Span { from, to: Duration::MAX });
                let mut random = run.random.fork();
                let loss = installation.suffers(trouble, &mut random, run).await;
                run.facts.losses.extend(loss);
                let merged = run.fleet.recovers().await;
                run.facts.merged.push(merged);
                let to = run.fleet.now() + UNNOTICED;
                *run.facts.outages.last_mut().expect("the one pushed above") = Span { from, to };
                run.describe("Redis answers everybody".to_owned());
            }
        }
    }
}

/// One server, with a network of its own to each place.
pub struct Alone {
    redis: RedisServer,
    proxies: Vec<Proxy>,
}

impl Alone {
    pub async fn install() -> Self {
        let redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
        let mut proxies = Vec::new();
        for _ in 0..PLACES {
            proxies.push(Proxy::start(SocketAddr::from(([127, 0, 0, 1], redis.port()))).await);
        }
        Self { redis, proxies }
    }

    async fn passes(&self, passing: Passing, random: &mut Rng) {
        let one = random.bool().then(|| random.usize(..PLACES));
        let hit = self.proxies.iter().enumerate().filter(|(place, _)| one.is_none_or(|one| one == *place));
        hit.for_each(|(_, proxy)| proxy.let_pass(passing));
        lasts(random).await;
        self.proxies.iter().for_each(|proxy| proxy.let_pass(Passing::Both));
    }
}

impl Installation for Alone {
    fn events(&self) -> Vec<Event> {
        let troubles = [Trouble::Dies, Trouble::Forgets, Trouble::Pauses, Trouble::IsCutOff, Trouble::IsUnheard];
        [Event::Killed, Event::Ended, Event::Reloads].into_iter().chain(troubles.map(Event::Outage)).collect()
    }

    fn stores(&self) -> Vec<String> {
        self.proxies.iter().map(|proxy| format!("url: \"redis://{}\"", proxy.address)).collect()
    }

    async fn suffers(&mut self, trouble: Trouble, random: &mut Rng, run: &Run) -> Option<Loss> {
        let from = run.fleet.now();
        match trouble {
            Trouble::Dies | Trouble::FailsOver => {
                self.redis.kill();
                lasts(random).await;
                tokio::task::block_in_place(|| self.redis.restart());
            }
            Trouble::Forgets => {
                self.redis.kill();
                lasts(random).await;
                // Nobody reaches it before it has forgotten: what was merged and then deleted would count nowhere.
                self.proxies.iter().for_each(|proxy| proxy.let_pass(Passing::Nothing));
                tokio::task::block_in_place(|| self.redis.restart());
                let keys: Vec<String> = self.redis.say(&["KEYS", "*"]);
                for key in keys.iter().filter(|key| !key.ends_with(":token")) {
                    self.redis.say::<()>(&["DEL", key]);
                }
                self.proxies.iter().for_each(|proxy| proxy.let_pass(Passing::Both));
                return Some(Loss { span: Span { from, to: run.fleet.now() }, forgotten: Duration::MAX });
            }
            Trouble::Pauses => {
                self.redis.pause();
                lasts(random).await;
                self.redis.resume();
            }
            Trouble::IsCutOff => self.passes(Passing::Nothing, random).await,
            Trouble::IsUnheard => self.passes(Passing::Questions, random).await,
        }
        None
    }
}

async fn lasts(random: &mut Rng) {
    tokio::time::sleep(Duration::from_millis(random.u64(100..3_000))).await;
}

/// A primary with a replica, and sentinels.
pub struct Elected {
    watched: Watched,
}

impl Elected {
    pub async fn install() -> Self {
        Self { watched: tokio::task::block_in_place(Watched::start) }
    }
}

impl Installation for Elected {
    fn events(&self) -> Vec<Event> {
        vec![Event::Killed, Event::Ended, Event::Reloads, Event::Outage(Trouble::FailsOver)]
    }

    fn stores(&self) -> Vec<String> {
        vec![format!("sentinel: {}", self.watched.config()); PLACES]
    }

    async fn suffers(&mut self, _: Trouble, _: &mut Rng, run: &Run) -> Option<Loss> {
        let old = eventually("a primary", async || self.watched.primary()).await;
        let known = eventually("the replica to be in step", async || {
            let now = run.fleet.now();
            self.watched.is_in_step(old).map(|()| now)
        })
        .await;
        let from = run.fleet.now();
        self.watched.servers[old].kill();
        tokio::task::block_in_place(|| self.watched.fail_over(1 - old));
        let loss = Loss { span: Span { from, to: run.fleet.now() }, forgotten: from - known };
        // The dead one comes back, and follows: it must never speak for itself.
        tokio::task::block_in_place(|| self.watched.rejoin(old));
        Some(loss)
    }
}
