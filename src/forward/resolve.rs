//! The addresses of endpoints. Host names are looked up in the background, once for all workers, so that no request waits for it.
//!
//! The look-up is the operating system's (`getaddrinfo`), with its hosts files and search domains. It returns no lifetimes, so names
//! are looked up again at an interval.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use smallvec::SmallVec;
use tokio::sync::watch;

use crate::config::{Config, Endpoint, EndpointAddress};
use crate::telemetry::{Metrics, NameMetrics};

/// A look-up may take this long; the operating system usually gives up earlier.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(30);
/// A name without a known address is looked up again after this time.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// An address that could not be connected to is tried after the others for this long.
const FAILED_ADDRESS_BACKOFF: Duration = Duration::from_secs(10);
/// Addresses that are tried for one connection.
const MAX_TRIED: usize = 8;

/// Where an endpoint is.
#[derive(Clone)]
pub(super) enum EndpointAddr {
    /// At an address from the configuration.
    Fixed(SocketAddr),
    /// At the addresses of a name, at this port.
    Named(Arc<HostName>, u16),
    /// At one of the addresses of a name.
    OneOf(Arc<HostName>, SocketAddr),
    /// At a Unix socket.
    Unix(Arc<Path>),
}

impl EndpointAddr {
    /// Whether the address of a connection is still one of the endpoint's.
    pub(super) fn has(&self, connected_to: Option<IpAddr>) -> bool {
        match (self, connected_to) {
            (Self::Named(name, _) | Self::OneOf(name, _), Some(address)) => name.has(address),
            (Self::Named(..) | Self::OneOf(..), None) | (Self::Fixed(_) | Self::Unix(_), _) => true,
        }
    }

    /// One of the name's addresses that is not `used`, and did not fail lately.
    pub(super) fn unused(&self, used: &[IpAddr]) -> Option<Self> {
        let Self::Named(name, port) = self else { return None };
        Some(Self::OneOf(name.clone(), (name.unused(used)?, *port).into()))
    }
}

/// The host names of all endpoints. They are looked up until this is dropped.
pub(super) struct ResolvedNames {
    /// By host and look-up interval.
    names: BTreeMap<(Arc<str>, Duration), Arc<HostName>>,
}

/// A host name and its addresses.
pub(super) struct HostName {
    host: Arc<str>,
    interval: Duration,
    known: ArcSwapOption<Known>,
    /// Counts finished look-ups.
    looked_up: watch::Sender<u64>,
    /// Which address the next connection tries first.
    next: AtomicUsize,
    created: Instant,
    metrics: NameMetrics,
}

/// What the last look-ups found.
#[derive(Default)]
struct Known {
    /// With the milliseconds after [`HostName::created`] until which others are preferred.
    addresses: BTreeMap<IpAddr, Arc<AtomicU64>>,
    /// Why the last one failed, if so.
    failure: Option<(io::ErrorKind, String)>,
}

impl ResolvedNames {
    /// Looks up every host name from here on, in tasks on this runtime; what `before` knows of a name stays.
    pub(super) fn new(config: &Config, metrics: &Metrics, before: Option<&Self>) -> Self {
        let mut names = BTreeMap::new();
        for upstream in &config.upstreams {
            for endpoint in &upstream.endpoints {
                if let EndpointAddress::Tcp { host, .. } = &endpoint.address
                    && host.parse::<IpAddr>().is_err()
                {
                    let interval = upstream.resolve_interval;
                    let key = (host.clone(), interval);
                    let known = before.and_then(|before| before.names.get(&key)).cloned();
                    names.entry(key).or_insert_with(|| {
                        known.unwrap_or_else(|| {
                            let name = Arc::new(HostName::new(host.clone(), interval, metrics.name(host)));
                            tokio::spawn(run(Arc::downgrade(&name)));
                            name
                        })
                    });
                }
            }
        }
        Self { names }
    }

    /// The address of an endpoint of an upstream with this look-up interval.
    pub(super) fn endpoint_addr(&self, endpoint: &Endpoint, interval: Duration) -> EndpointAddr {
        let (host, port) = match &endpoint.address {
            EndpointAddress::Unix(path) => return EndpointAddr::Unix(path.clone()),
            EndpointAddress::Tcp { host, port } => (host, *port),
        };
        match (host.parse::<IpAddr>(), self.names.get(&(host.clone(), interval))) {
            (Ok(address), _) => EndpointAddr::Fixed((address, port).into()),
            (Err(_), Some(name)) => EndpointAddr::Named(name.clone(), port),
            (Err(_), None) => unreachable!("the names are those of the same configuration"),
        }
    }
}

/// Looks a name up again and again, until it is dropped.
async fn run(name: Weak<HostName>) {
    while let Some(name) = name.upgrade() {
        let found = tokio::time::timeout(LOOK_UP_TIMEOUT, tokio::net::lookup_host((&*name.host, 0))).await;
        let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let is_known = name.update(found.map(|addresses| addresses.map(|address| address.ip()).collect()));
        let pause = if is_known { name.interval } else { RETRY_INTERVAL };
        drop(name);
        // Instances that started together don't stay synchronised.
        tokio::time::sleep(pause.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}

impl HostName {
    fn new(host: Arc<str>, interval: Duration, metrics: NameMetrics) -> Self {
        Self {
            host,
            interval,
            known: ArcSwapOption::empty(),
            looked_up: watch::Sender::new(0),
            // Instances begin at different addresses.
            next: AtomicUsize::new(fastrand::usize(..1024)),
            created: Instant::now(),
            metrics,
        }
    }

    /// Stores the result of a look-up; after a failure the known addresses stay. Returns whether there are any.
    fn update(&self, found: io::Result<BTreeSet<IpAddr>>) -> bool {
        let before = self.known.load_full().unwrap_or_default();
        let found = found.and_then(|addresses| match addresses.is_empty() {
            true => Err(io::Error::other("the name has no addresses")),
            false => Ok(addresses),
        });
        let known = match found {
            Err(error) => {
                self.metrics.failures.inc();
                if before.failure.is_none() {
                    tracing::warn!(host = &*self.host, %error, known = before.addresses.len(), "can't look up the host name of an upstream; will retry");
                }
                let failure = Some((error.kind(), error.to_string()));
                Known { addresses: before.addresses.clone(), failure }
            }
            Ok(found) => {
                if before.failure.is_some() {
                    tracing::info!(host = &*self.host, "the host name can be looked up again");
                }
                if !before.addresses.is_empty() && !before.addresses.keys().eq(&found) {
                    tracing::info!(host = &*self.host, addresses = ?found, "the addresses of an upstream have changed");
                }
                self.metrics.addresses.set(i64::try_from(found.len()).unwrap_or(i64::MAX));
                let penalty = |address| before.addresses.get(&address).cloned().unwrap_or_default();
                Known {
                    addresses: found.into_iter().map(|address| (address, penalty(address))).collect(),
                    failure: None,
                }
            }
        };
        let is_known = !known.addresses.is_empty();
        self.known.store(Some(Arc::new(known)));
        self.looked_up.send_modify(|count| *count += 1);
        is_known
    }

    /// Whether the last look-up found this address.
    fn has(&self, address: IpAddr) -> bool {
        self.known.load().as_ref().is_some_and(|known| known.addresses.contains_key(&address))
    }

    fn unused(&self, used: &[IpAddr]) -> Option<IpAddr> {
        let (known, now) = (self.known.load(), self.now());
        let mut addresses = known.iter().flat_map(|known| &known.addresses);
        let unused = addresses.find(|(address, until)| !is_penalized(until, now) && !used.contains(address));
        unused.map(|(address, _)| *address)
    }

    /// The addresses to try for one connection: in rotation, and those that failed lately last. Waits for the first look-up only.
    ///
    /// # Errors
    /// When no address is known.
    pub(super) async fn order(&self) -> io::Result<SmallVec<[IpAddr; MAX_TRIED]>> {
        let mut looked_up = self.looked_up.subscribe();
        if self.known.load().is_none() {
            // The sender lives as long as this name.
            let _ = looked_up.changed().await;
        }
        let known = self.known.load_full().unwrap_or_default();
        let count = known.addresses.len();
        if count == 0 {
            let (kind, why) =
                known.failure.clone().unwrap_or((io::ErrorKind::NotFound, "it is not known yet".to_owned()));
            return Err(io::Error::new(kind, format!("{} has no address: {why}", self.host)));
        }
        let (first, now) = (self.next.fetch_add(1, Ordering::Relaxed), self.now());
        let rotated = known.addresses.iter().cycle().skip(first % count).take(count);
        let mut order: SmallVec<[_; MAX_TRIED]> =
            rotated.map(|(address, until)| (is_penalized(until, now), *address)).collect();
        order.sort_by_key(|(is_penalized, _)| *is_penalized);
        Ok(order.into_iter().take(MAX_TRIED).map(|(_, address)| address).collect())
    }

    /// Watches an attempt to connect to one of the addresses: one that fails, or takes longer than `timeout`, is penalized.
    pub(super) async fn attempt<T>(
        &self,
        address: IpAddr,
        timeout: Duration,
        attempt: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let mut attempt = pin!(attempt);
        let made = match tokio::time::timeout(timeout, attempt.as_mut()).await {
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
        if let Some(penalized_until) = self.known.load().as_ref().and_then(|known| known.addresses.get(&address)) {
            penalized_until.store(until, Ordering::Relaxed);
        }
    }

    fn now(&self) -> u64 {
        // 64 bits of milliseconds outlast every process.
        self.created.elapsed().as_millis() as u64
    }
}

fn is_penalized(until: &AtomicU64, now: u64) -> bool {
    until.load(Ordering::Relaxed) > now
}
