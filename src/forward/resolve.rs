//! The addresses of endpoints. Host names are looked up in the background, once for all workers, so that no request waits for it.
//!
//! The look-up is the operating system's (`getaddrinfo`), with its hosts files and search domains. It returns no lifetimes, so names
//! are looked up again at an interval.

use std::collections::BTreeMap;
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
pub struct ResolvedNames {
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
    addresses: Vec<Address>,
    /// Why the last one failed, if so.
    failure: Option<(io::ErrorKind, String)>,
}

#[derive(Clone)]
struct Address {
    ip: IpAddr,
    /// Milliseconds after [`HostName::created`] until which others are preferred.
    penalized_until: Arc<AtomicU64>,
}

impl ResolvedNames {
    /// Starts to look up every host name, in tasks on this runtime. A name that can't be found does not stop Callgate from starting.
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
                        let name = Arc::new(HostName::new(host.clone(), interval, metrics.name(host)));
                        tokio::spawn(run(Arc::downgrade(&name)));
                        name
                    });
                }
            }
        }
        Arc::new(Self { names })
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
    fn update(&self, found: io::Result<Vec<IpAddr>>) -> bool {
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
            Ok(mut found) => {
                found.sort_unstable();
                found.dedup();
                if before.failure.is_some() {
                    tracing::info!(host = &*self.host, "the host name can be looked up again");
                }
                if !before.addresses.is_empty() && !before.addresses.iter().map(|known| &known.ip).eq(&found) {
                    tracing::info!(host = &*self.host, addresses = ?found, "the addresses of an upstream have changed");
                }
                self.metrics.addresses.set(i64::try_from(found.len()).unwrap_or(i64::MAX));
                Known { addresses: found.into_iter().map(|ip| before.address(ip)).collect(), failure: None }
            }
        };
        let is_known = !known.addresses.is_empty();
        self.known.store(Some(Arc::new(known)));
        self.looked_up.send_modify(|count| *count += 1);
        is_known
    }

    /// Whether the last look-up found this address.
    fn has(&self, address: IpAddr) -> bool {
        self.known.load().as_ref().is_some_and(|known| known.addresses.iter().any(|known| known.ip == address))
    }

    fn unused(&self, used: &[IpAddr]) -> Option<IpAddr> {
        let (known, now) = (self.known.load(), self.now());
        let mut addresses = known.iter().flat_map(|known| &known.addresses);
        addresses.find(|address| !address.is_penalized(now) && !used.contains(&address.ip)).map(|address| address.ip)
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
        let rotated = (0..count).map(|step| &known.addresses[(first + step) % count]);
        let (good, penalized): (SmallVec<[&Address; MAX_TRIED]>, SmallVec<[&Address; MAX_TRIED]>) =
            rotated.partition(|address| !address.is_penalized(now));
        Ok(good.into_iter().chain(penalized).take(MAX_TRIED).map(|address| address.ip).collect())
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
        let known = self.known.load();
        if let Some(address) = known.iter().flat_map(|known| &known.addresses).find(|known| known.ip == address) {
            address.penalized_until.store(until, Ordering::Relaxed);
        }
    }

    fn now(&self) -> u64 {
        // 64 bits of milliseconds outlast every process.
        self.created.elapsed().as_millis() as u64
    }
}

impl Known {
    /// An address with its penalty, if it has one.
    fn address(&self, ip: IpAddr) -> Address {
        let known = self.addresses.iter().find(|known| known.ip == ip);
        known.cloned().unwrap_or_else(|| Address { ip, penalized_until: Arc::default() })
    }
}

impl Address {
    fn is_penalized(&self, now: u64) -> bool {
        self.penalized_until.load(Ordering::Relaxed) > now
    }
}
