//! Failed authentications: a bound on them per network of clients, and one on the look-ups that they cause, per process.
//!
//! Tokens that this process knows are not asked about here: who shares an address with somebody who guesses is not punished for
//! it. A good token that is not known here yet, and comes from an address that has failed too often, is refused once; it is looked
//! up when it comes again a second later or more, as `Retry-After` says. Who guesses does not come twice with the same token; and
//! who does is held to a second, smaller bound.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ipnet::IpNet;

use super::refusal::Refusal;
use crate::config::FailureLimits;
use crate::sharded::Sharded;
use crate::tokens::TokenHash;

/// Networks that are remembered, in as many parts as can be looked at without waiting for each other. 100 bytes each.
const SHARDS: usize = 16;
const NETWORKS_PER_SHARD: usize = 4_096;
/// Tokens that may come again. A newer one takes the place of an older one.
const WAITING: usize = 4_096;
/// Who comes again after more seconds than this is new.
const LONGEST_WAIT_S: u16 = 3_600;
/// Second chances of one network: one a second, and so many at one time.
const SECOND_CHANCES: Rate = Rate { every_us: 1_000_000, burst: 10 };

/// So many events at one time, and one more after each interval.
#[derive(Debug, Clone, Copy)]
struct Rate {
    /// Microseconds.
    every_us: u64,
    burst: u64,
}

/// How far a rate is used up: the time until which its events are paid for, in microseconds (the generic cell rate algorithm).
#[derive(Debug, Clone, Copy, Default)]
struct GcraState(u64);

impl GcraState {
    /// Microseconds until there is room for one more event; 0 if there is now.
    fn wait(self, rate: Rate, now_us: u64) -> u64 {
        self.0.saturating_sub(now_us.saturating_add(rate.every_us.saturating_mul(rate.burst - 1)))
    }

    fn pay(&mut self, rate: Rate, now_us: u64) {
        self.0 = self.0.max(now_us).saturating_add(rate.every_us);
    }
}

#[derive(Default)]
struct Tally {
    failures: GcraState,
    second_chances: GcraState,
}

/// The failed authentications that the workers of a process have seen of late, bounded in number.
pub struct Failures {
    /// Failures of one network; `None`: any number.
    limit: Option<Rate>,
    prefixes: (u8, u8),
    /// Look-ups in vain, and those of tokens that come again.
    lookups: [(Rate, Mutex<GcraState>); 2],
    networks: Sharded<HashMap<IpAddr, Tally, foldhash::fast::RandomState>, SHARDS>,
    waiting: Box<[AtomicU64]>,
    began: Instant,
}

/// Leave to look a token up.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LookupPermit {
    again: bool,
}

impl Failures {
    /// None so far.
    #[must_use]
    pub fn new(limits: &FailureLimits) -> Self {
        let rate = |count: u32, window_ms: u64| Rate {
            every_us: (window_ms * 1_000 / u64::from(count.max(1))).max(1),
            burst: count.max(1).into(),
        };
        let again = (limits.lookups / 4).max(1);
        Self {
            limit: limits.limit.map(|(count, window_ms)| rate(count.get(), window_ms.get().into())),
            prefixes: (limits.ipv4_prefix, limits.ipv6_prefix),
            lookups: [limits.lookups, again].map(|count| (rate(count, 1_000), Mutex::default())),
            networks: Sharded::default(),
            waiting: (0..WAITING).map(|_| AtomicU64::new(0)).collect(),
            began: Instant::now(),
        }
    }

    /// Whether a token that is not known here may be looked up for this client.
    pub(super) fn ask(&self, client: IpAddr, hash: &TokenHash) -> Result<LookupPermit, Refusal> {
        self.ask_at(client, hash, self.now_us())
    }

    fn ask_at(&self, client: IpAddr, hash: &TokenHash, now_us: u64) -> Result<LookupPermit, Refusal> {
        let wait_us = self.wait_of(client, now_us);
        let crowded = !self.has_room(false, now_us);
        if wait_us == 0 && !crowded {
            return Ok(LookupPermit { again: false });
        }
        let again = self.is_retry(hash.head(), now_us) && self.has_room(true, now_us);
        if again && (wait_us == 0 || self.second_chance(client, now_us)) {
            return Ok(LookupPermit { again: true });
        }
        if wait_us == 0 { Err(Refusal::LookupsExhausted) } else { Err(too_many(wait_us)) }
    }

    /// A look-up was in vain: it counts against the client and against all.
    pub(super) fn record_miss(&self, client: IpAddr, leave: LookupPermit) {
        let now_us = self.now_us();
        let (rate, paid) = &self.lookups[usize::from(leave.again)];
        paid.lock().unwrap_or_else(PoisonError::into_inner).pay(*rate, now_us);
        if !leave.again {
            self.count(client, now_us);
        }
    }

    /// A token failed without a look-up: why it is refused, which is for having failed too often if it has.
    pub(super) fn failed(&self, client: IpAddr, refusal: Refusal) -> Refusal {
        let now_us = self.now_us();
        let wait_us = self.wait_of(client, now_us);
        if wait_us > 0 {
            return too_many(wait_us);
        }
        self.count(client, now_us);
        refusal
    }

    /// Microseconds until this client may fail again.
    fn wait_of(&self, client: IpAddr, now_us: u64) -> u64 {
        let Some(rate) = self.limit else { return 0 };
        let network = self.network(client);
        let networks = self.networks.lock(&network);
        networks.get(&network).map_or(0, |tally| tally.failures.wait(rate, now_us))
    }

    fn count(&self, client: IpAddr, now_us: u64) {
        let Some(rate) = self.limit else { return };
        let network = self.network(client);
        let mut networks = self.networks.lock(&network);
        if networks.len() >= NETWORKS_PER_SHARD && !networks.contains_key(&network) {
            // Those that have failed least, or longest ago, are forgotten.
            let mut paid: Vec<u64> = networks.values().map(|tally| tally.failures.0).collect();
            let (_, median, _) = paid.select_nth_unstable(NETWORKS_PER_SHARD / 2);
            let keep = (*median).max(now_us);
            networks.retain(|_, tally| tally.failures.0 > keep);
        }
        networks.entry(network).or_default().failures.pay(rate, now_us);
    }

    fn second_chance(&self, client: IpAddr, now_us: u64) -> bool {
        let network = self.network(client);
        let mut networks = self.networks.lock(&network);
        let Some(tally) = networks.get_mut(&network) else { return true };
        let free = tally.second_chances.wait(SECOND_CHANCES, now_us) == 0;
        if free {
            tally.second_chances.pay(SECOND_CHANCES, now_us);
        }
        free
    }

    fn has_room(&self, again: bool, now_us: u64) -> bool {
        let (rate, paid) = &self.lookups[usize::from(again)];
        paid.lock().unwrap_or_else(PoisonError::into_inner).wait(*rate, now_us) == 0
    }

    /// Whether this token was refused some seconds ago. If not, it is remembered from now on.
    fn is_retry(&self, fingerprint: u64, now_us: u64) -> bool {
        // 48 bits of the fingerprint, and seconds modulo 2^16; 0 is nobody.
        let seconds = (now_us / 1_000_000) as u16;
        let tag = (fingerprint >> 16).max(1);
        let slot = &self.waiting[fingerprint as usize % WAITING];
        let before = slot.load(Ordering::Relaxed);
        let waited = if before >> 16 == tag { seconds.wrapping_sub(before as u16) } else { u16::MAX };
        if waited == 0 {
            return false;
        }
        let again = waited <= LONGEST_WAIT_S;
        slot.store(if again { 0 } else { tag << 16 | u64::from(seconds) }, Ordering::Relaxed);
        again
    }

    fn network(&self, client: IpAddr) -> IpAddr {
        let prefix = if client.is_ipv4() { self.prefixes.0 } else { self.prefixes.1 };
        IpNet::new(client, prefix).map_or(client, |network| network.network())
    }

    fn now_us(&self) -> u64 {
        // From 1 on: time 0 would be free of charge. 64 bits of microseconds outlast every process.
        self.began.elapsed().as_micros() as u64 + 1
    }
}

fn too_many(wait_us: u64) -> Refusal {
    Refusal::TooManyFailures { retry_after_s: u32::try_from(wait_us.div_ceil(1_000_000)).unwrap_or(u32::MAX) }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const SECOND: u64 = 1_000_000;

    fn failures(lookups: u32) -> Failures {
        let limit = Some((NonZeroU32::new(60).unwrap(), NonZeroU32::new(60_000).unwrap()));
        Failures::new(&FailureLimits { limit, ipv4_prefix: 32, ipv6_prefix: 64, lookups })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn wait(failures: &Failures, client: &str, now_us: u64) -> u64 {
        failures.wait_of(ip(client), now_us)
    }

    #[test]
    fn sixty_failures_are_one_too_many_until_a_second_later() {
        let (failures, now) = (failures(1_000), 5 * SECOND);
        for _ in 0..60 {
            assert_eq!(wait(&failures, "192.0.2.1", now), 0);
            failures.count(ip("192.0.2.1"), now);
        }
        assert_eq!(wait(&failures, "192.0.2.1", now), SECOND);
        assert_eq!(wait(&failures, "192.0.2.1", now + SECOND), 0);
        assert_eq!(wait(&failures, "192.0.2.2", now), 0);
        let hash = TokenHash::of("x");
        let refused = failures.ask_at(ip("192.0.2.1"), &hash, now).unwrap_err();
        assert_eq!(refused, Refusal::TooManyFailures { retry_after_s: 1 });
        assert!(failures.ask_at(ip("192.0.2.2"), &hash, now).is_ok());
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let (failures, now) = (failures(1_000), SECOND);
        for host in 0..60 {
            failures.count(ip(&format!("2001:db8:0:7::{host:x}")), now);
        }
        assert!(wait(&failures, "2001:db8:0:7:ffff::1", now) > 0);
        assert_eq!(wait(&failures, "2001:db8:0:8::1", now), 0);
    }

    #[test]
    fn who_comes_again_as_told_is_looked_up_once_and_a_guesser_is_not() {
        let (failures, now) = (failures(1_000), 5 * SECOND);
        let client = ip("192.0.2.1");
        for _ in 0..200 {
            failures.count(client, now);
        }
        let good = TokenHash::of("good");
        assert!(failures.ask_at(client, &good, now).is_err());
        assert!(failures.ask_at(client, &good, now + SECOND / 2).is_err(), "it did not wait");
        for guess in 0..500 {
            assert!(failures.ask_at(client, &TokenHash::of(&guess.to_string()), now).is_err());
        }
        assert!(failures.ask_at(client, &good, now + SECOND).unwrap().again);
        assert!(failures.ask_at(client, &good, now + SECOND).is_err(), "once");
        // Guessing twice each time has a bound of its own.
        let later = now + 2 * SECOND;
        let passed =
            (0..500).filter(|guess| failures.ask_at(client, &TokenHash::of(&guess.to_string()), later).is_ok());
        assert_eq!(passed.count(), 10);
    }

    #[test]
    fn look_ups_in_vain_are_bounded_over_all_clients() {
        let failures = failures(100);
        let mut asked = 0;
        for guess in 0..10_000_u32 {
            let client = IpAddr::V4((0x0a00_0000 + guess).into());
            if let Ok(leave) = failures.ask(client, &TokenHash::of(&guess.to_string())) {
                failures.record_miss(client, leave);
                asked += 1;
            }
        }
        let seconds = failures.began.elapsed().as_secs();
        assert!((100..=110 + 100 * (seconds + 1)).contains(&asked), "{asked} in {seconds} s");
        let client = ip("192.0.2.1");
        assert_eq!(failures.ask(client, &TokenHash::of("good")).unwrap_err(), Refusal::LookupsExhausted);
    }

    #[test]
    fn memory_is_bounded_and_the_worst_are_remembered() {
        let (failures, now) = (failures(1_000), SECOND);
        for _ in 0..60 {
            failures.count(ip("192.0.2.1"), now);
        }
        for network in 0..200_000_u64 {
            failures.count(IpAddr::V6((0x2001_0db8_u128 << 96 | u128::from(network) << 64).into()), now);
        }
        let known: usize = failures.networks.iter().map(|networks| networks.len()).sum();
        assert!(known <= SHARDS * NETWORKS_PER_SHARD, "{known}");
        assert!(wait(&failures, "192.0.2.1", now) > 0);
    }
}
