//! The generic cell rate algorithm: so many events at one time, and one more after each interval.
//!
//! Times are microseconds since a moment that the caller chooses.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use ipnet::IpNet;

use crate::sharded::Sharded;

/// Networks are remembered in as many parts as can be looked at without waiting for each other.
const SHARDS: usize = 16;
const MAX_NETWORKS_PER_SHARD: usize = 4_096;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    interval_us: u64,
    burst: u64,
}

impl Rate {
    /// `count` events (at least one) at one time, and one more after each `window_ms / count`.
    pub(crate) fn new(count: u32, window_ms: u64) -> Self {
        let count = u64::from(count.max(1));
        Self { interval_us: (window_ms * 1_000 / count).max(1), burst: count }
    }
}

/// How far a rate is used up: the time until which its events are paid for.
#[derive(Debug, Clone, Copy, Default)]
struct GcraState(u64);

impl GcraState {
    fn wait_us(self, rate: Rate, now_us: u64) -> u64 {
        self.0.saturating_sub(now_us.saturating_add(rate.interval_us.saturating_mul(rate.burst - 1)))
    }

    fn record(&mut self, rate: Rate, now_us: u64) {
        self.0 = self.0.max(now_us).saturating_add(rate.interval_us);
    }
}

/// One rate for everybody.
pub(crate) struct RateLimiter {
    rate: Rate,
    state: Mutex<GcraState>,
}

impl RateLimiter {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, state: Mutex::default() }
    }

    /// Microseconds until there is room for one more event; 0 if there is now.
    pub(crate) fn wait_us(&self, now_us: u64) -> u64 {
        self.state().wait_us(self.rate, now_us)
    }

    pub(crate) fn record(&self, now_us: u64) {
        self.state().record(self.rate, now_us);
    }

    fn state(&self) -> MutexGuard<'_, GcraState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A rate for each network of clients. It remembers a bounded number of networks, about 100 bytes each.
pub(crate) struct NetworkLimiter {
    rate: Rate,
    /// Bits that make a network, of IPv4 and of IPv6.
    prefixes: (u8, u8),
    shards: Sharded<HashMap<IpAddr, GcraState, RandomState>, SHARDS>,
}

impl NetworkLimiter {
    pub(crate) fn new(rate: Rate, ipv4_prefix: u8, ipv6_prefix: u8) -> Self {
        Self { rate, prefixes: (ipv4_prefix, ipv6_prefix), shards: Sharded::default() }
    }

    /// Microseconds until this client's network has room for one more event; 0 if it has now.
    pub(crate) fn wait_us(&self, client: IpAddr, now_us: u64) -> u64 {
        let network = self.network(client);
        self.shards.lock(&network).get(&network).map_or(0, |state| state.wait_us(self.rate, now_us))
    }

    pub(crate) fn record(&self, client: IpAddr, now_us: u64) {
        self.record_if(client, now_us, |_| true);
    }

    /// Records an event if there is room for it; returns whether there was.
    pub(crate) fn try_record(&self, client: IpAddr, now_us: u64) -> bool {
        self.record_if(client, now_us, |state| state.wait_us(self.rate, now_us) == 0)
    }

    fn record_if(&self, client: IpAddr, now_us: u64, condition: impl FnOnce(GcraState) -> bool) -> bool {
        let network = self.network(client);
        let mut networks = self.shards.lock(&network);
        if networks.len() >= MAX_NETWORKS_PER_SHARD && !networks.contains_key(&network) {
            // Networks with the fewest or the oldest events are forgotten.
            let mut states: Vec<u64> = networks.values().map(|state| state.0).collect();
            let (_, median, _) = states.select_nth_unstable(MAX_NETWORKS_PER_SHARD / 2);
            let keep_above = (*median).max(now_us);
            networks.retain(|_, state| state.0 > keep_above);
        }
        let state = networks.entry(network).or_default();
        let is_recorded = condition(*state);
        if is_recorded {
            state.record(self.rate, now_us);
        }
        is_recorded
    }

    fn network(&self, client: IpAddr) -> IpAddr {
        network_of(client, self.prefixes.0, self.prefixes.1)
    }
}

/// The network that an address belongs to, of so many bits.
pub(crate) fn network_of(address: IpAddr, ipv4_prefix: u8, ipv6_prefix: u8) -> IpAddr {
    let address = address.to_canonical();
    let prefix = if address.is_ipv4() { ipv4_prefix } else { ipv6_prefix };
    IpNet::new(address, prefix).map_or(address, |network| network.network())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    /// Sixty a minute.
    fn limiter() -> NetworkLimiter {
        NetworkLimiter::new(Rate::new(60, 60_000), 32, 64)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn sixty_events_are_one_too_many_until_a_second_later() {
        let (limiter, now, client) = (limiter(), 5 * SECOND, ip("192.0.2.1"));
        for _ in 0..60 {
            assert_eq!(limiter.wait_us(client, now), 0);
            limiter.record(client, now);
        }
        assert_eq!(limiter.wait_us(client, now), SECOND);
        assert_eq!(limiter.wait_us(ip("::ffff:192.0.2.1"), now), SECOND, "the same client");
        assert_eq!(limiter.wait_us(client, now + SECOND), 0);
        assert_eq!(limiter.wait_us(ip("192.0.2.2"), now), 0, "others don't wait");
        assert!(limiter.try_record(client, now + SECOND) && !limiter.try_record(client, now + SECOND));
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let (limiter, now) = (limiter(), SECOND);
        for host in 0..60 {
            limiter.record(ip(&format!("2001:db8:0:7::{host:x}")), now);
        }
        assert!(limiter.wait_us(ip("2001:db8:0:7:ffff::1"), now) > 0);
        assert_eq!(limiter.wait_us(ip("2001:db8:0:8::1"), now), 0);
    }

    #[test]
    fn memory_is_bounded_and_the_worst_are_remembered() {
        let (limiter, now) = (limiter(), SECOND);
        for _ in 0..60 {
            limiter.record(ip("192.0.2.1"), now);
        }
        for network in 0..200_000_u64 {
            limiter.record(IpAddr::V6((0x2001_0db8_u128 << 96 | u128::from(network) << 64).into()), now);
        }
        let known: usize = limiter.shards.iter().map(|shard| shard.len()).sum();
        assert!(known <= SHARDS * MAX_NETWORKS_PER_SHARD, "{known}");
        assert!(limiter.wait_us(ip("192.0.2.1"), now) > 0);
    }
}
