//! The addresses behind host names: looked up in the background, once for all workers, so that no request waits for it.
//!
//! The operating system is asked (`getaddrinfo`), so that hosts files, search domains and whatever else is configured there
//! count. It tells no lifetimes; so names are looked up again at an interval.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use smallvec::SmallVec;
use tokio::sync::watch;

use crate::config::{Config, Endpoint, EndpointAddress};
use crate::telemetry::{Metrics, NameMetrics};

use super::connect::Place;

/// How long a look-up may take, at the most: the system's own patience is usually shorter.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(30);
/// A name of which no address is known is looked up again after this time.
const RETRY: Duration = Duration::from_secs(1);
/// An address that could not be connected to is tried after the others for this long.
const FAILED_ADDRESS_BACKOFF: Duration = Duration::from_secs(10);
/// Addresses that one connection may be tried at.
const MOST_TRIED: usize = 8;

/// The host names of all endpoints. Dropped, they are looked up no longer.
pub struct ResolvedNames {
    /// By host, and by how often they are looked up.
    names: BTreeMap<(Arc<str>, Duration), Arc<Name>>,
}

/// A host name.
pub(super) struct Name {
    host: Arc<str>,
    interval: Duration,
    known: ArcSwapOption<Known>,
    /// Counts look-ups that are over.
    looked_up: watch::Sender<u64>,
    turn: AtomicUsize,
    since: Instant,
    metrics: NameMetrics,
}

/// What the last look-ups found.
#[derive(Default)]
struct Known {
    addresses: Vec<Address>,
    /// Why the last one failed, if it did.
    failure: Option<(io::ErrorKind, String)>,
}

struct Address {
    ip: IpAddr,
    /// Milliseconds after [`Name::since`] until which others are preferred.
    shunned_until: Arc<AtomicU64>,
}

impl ResolvedNames {
    /// Begins to look up every host name, in tasks on this runtime. One that can't be found keeps nobody from starting.
    #[must_use]
    pub fn start(config: &Config, metrics: &Metrics) -> Arc<Self> {
        let mut names = BTreeMap::new();
        for upstream in &config.upstreams {
            for endpoint in &upstream.endpoints {
                if let EndpointAddress::Tcp { host, .. } = &endpoint.address
                    && host.parse::<IpAddr>().is_err()
                {
                    let interval = upstream.resolve_interval;
                    names.entry((host.clone(), interval)).or_insert_with(|| {
                        let name = Arc::new(Name::new(host.clone(), interval, metrics.name(host)));
                        tokio::spawn(keep(Arc::downgrade(&name)));
                        name
                    });
                }
            }
        }
        Arc::new(Self { names })
    }

    /// Where an endpoint is whose names are looked up at this interval.
    pub(super) fn place(&self, endpoint: &Endpoint, interval: Duration) -> Place {
        let (host, port) = match &endpoint.address {
            EndpointAddress::Unix(path) => return Place::Unix(path.clone()),
            EndpointAddress::Tcp { host, port } => (host, *port),
        };
        match (host.parse::<IpAddr>(), self.names.get(&(host.clone(), interval))) {
            (Ok(address), _) => Place::Fixed((address, port).into()),
            (Err(_), Some(name)) => Place::Named(name.clone(), port),
            (Err(_), None) => unreachable!("the names are those of the same configuration"),
        }
    }
}

/// Looks a name up for as long as somebody uses it.
async fn keep(name: Weak<Name>) {
    while let Some(name) = name.upgrade() {
        let found = tokio::time::timeout(LOOK_UP_TIMEOUT, tokio::net::lookup_host((&*name.host, 0))).await;
        let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        name.learn(found.map(|addresses| addresses.map(|address| address.ip()).collect()));
        let pause = if name.count() == 0 { RETRY } else { name.interval };
        drop(name);
        // Instances that started together don't ask together for ever.
        tokio::time::sleep(pause.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}

impl Name {
    fn new(host: Arc<str>, interval: Duration, metrics: NameMetrics) -> Self {
        Self {
            host,
            interval,
            known: ArcSwapOption::empty(),
            looked_up: watch::Sender::new(0),
            // Instances begin at different addresses.
            turn: AtomicUsize::new(fastrand::usize(..1024)),
            since: Instant::now(),
            metrics,
        }
    }

    /// Takes over what a look-up found. What was known stays when it failed.
    fn learn(&self, found: io::Result<Vec<IpAddr>>) {
        let before = self.known.load_full().unwrap_or_default();
        let found = found.and_then(|addresses| match addresses.is_empty() {
            true => Err(io::Error::other("the name has no addresses")),
            false => Ok(addresses),
        });
        let known = match found {
            Err(error) => {
                self.metrics.failures.inc();
                if before.failure.is_none() {
                    tracing::warn!(host = &*self.host, %error, known = before.addresses.len(), "a host name of an upstream can't be looked up; trying on");
                }
                let failure = Some((error.kind(), error.to_string()));
                Known { addresses: before.addresses.iter().map(Address::same).collect(), failure }
            }
            Ok(mut found) => {
                found.sort_unstable();
                found.dedup();
                if before.failure.is_some() {
                    tracing::info!(host = &*self.host, "the host name can be looked up again");
                }
                if !before.addresses.is_empty()
                    && !before.addresses.iter().map(|address| address.ip).eq(found.iter().copied())
                {
                    tracing::info!(host = &*self.host, addresses = ?found, "the addresses of an upstream have changed");
                }
                self.metrics.addresses.set(i64::try_from(found.len()).unwrap_or(i64::MAX));
                Known { addresses: found.into_iter().map(|ip| before.address(ip)).collect(), failure: None }
            }
        };
        self.known.store(Some(Arc::new(known)));
        self.looked_up.send_modify(|count| *count += 1);
    }

    /// Whether it has this address, by the last answer.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.known.load().as_ref().is_some_and(|known| known.addresses.iter().any(|known| known.ip == address))
    }

    /// How many addresses it has, by the last answer.
    pub(super) fn count(&self) -> usize {
        self.known.load().as_ref().map_or(0, |known| known.addresses.len())
    }

    /// An address that is not among these, and did not fail lately.
    pub(super) fn beside(&self, used: &[IpAddr]) -> Option<IpAddr> {
        let (known, now) = (self.known.load(), self.now());
        let mut addresses = known.iter().flat_map(|known| &known.addresses);
        addresses.find(|address| !address.is_shunned(now) && !used.contains(&address.ip)).map(|address| address.ip)
    }

    /// The addresses to try for one connection, in this order: each is the first in its turn, and those that have just failed come
    /// last. Waits only for the very first look-up.
    ///
    /// # Errors
    /// When no address is known.
    pub(super) async fn order(&self) -> io::Result<SmallVec<[IpAddr; MOST_TRIED]>> {
        let mut looked_up = self.looked_up.subscribe();
        if self.known.load().is_none() {
            // The sender lives as long as this name.
            let _ = looked_up.changed().await;
        }
        let known = self.known.load_full().unwrap_or_default();
        if known.addresses.is_empty() {
            let (kind, why) =
                known.failure.clone().unwrap_or((io::ErrorKind::NotFound, "it is not known yet".to_owned()));
            return Err(io::Error::new(kind, format!("{} has no address: {why}", self.host)));
        }
        let (turn, now) = (self.turn.fetch_add(1, Ordering::Relaxed), self.now());
        let count = known.addresses.len();
        let turned = (0..count).map(|step| &known.addresses[(turn + step) % count]);
        let (good, penalized_until): (SmallVec<[&Address; MOST_TRIED]>, SmallVec<[&Address; MOST_TRIED]>) =
            turned.partition(|address| !address.is_shunned(now));
        Ok(good.into_iter().chain(penalized_until).take(MOST_TRIED).map(|address| address.ip).collect())
    }

    /// Watches an attempt to connect to one of the addresses: one that fails, or takes longer than `patience`, counts against it.
    pub(super) async fn attempt<T>(
        &self,
        address: IpAddr,
        patience: Duration,
        attempt: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let mut attempt = pin!(attempt);
        let made = match tokio::time::timeout(patience, attempt.as_mut()).await {
            Ok(made) => made,
            Err(_) => {
                self.mark(address, false);
                attempt.await
            }
        };
        self.mark(address, made.is_ok());
        made
    }

    fn mark(&self, address: IpAddr, works: bool) {
        let until = if works { 0 } else { self.now() + FAILED_ADDRESS_BACKOFF.as_millis() as u64 };
        let known = self.known.load();
        if let Some(address) = known.iter().flat_map(|known| &known.addresses).find(|known| known.ip == address) {
            address.shunned_until.store(until, Ordering::Relaxed);
        }
    }

    fn now(&self) -> u64 {
        // 64 bits of milliseconds outlast every process.
        self.since.elapsed().as_millis() as u64
    }
}

impl Known {
    /// An address with what is held against it.
    fn address(&self, ip: IpAddr) -> Address {
        let known = self.addresses.iter().find(|known| known.ip == ip);
        known.map_or_else(|| Address { ip, shunned_until: Arc::default() }, Address::same)
    }
}

impl Address {
    fn is_shunned(&self, now: u64) -> bool {
        self.shunned_until.load(Ordering::Relaxed) > now
    }

    fn same(&self) -> Self {
        Self { ip: self.ip, shunned_until: self.shunned_until.clone() }
    }
}
