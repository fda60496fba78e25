//! Failed authentications: a bound on them per network of clients, and one on the look-ups that they cause, per process.
//!
//! Tokens that this process knows are not counted here, so clients that share an address with an attacker keep working. A good
//! token that is not known here yet, and comes from an address that has failed too often, is refused once; it is looked up when it
//! comes again a second later or more, as `Retry-After` says. Guesses don't come twice with the same token; those that do are held
//! to a second, smaller bound.
//!
//! A flood of guesses from many networks uses up the look-ups of all. So some are reserved for networks from which a good token was
//! looked up within the last hour: an attacker's networks have sent none. Clients from elsewhere wait for their retry.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::refusal::Refusal;
use crate::config::FailureLimits;
use crate::gcra::{NetworkLimiter, Rate, RateLimiter};
use crate::tokens::TokenHash;

/// Refused tokens that are remembered for their retry. A newer one takes the place of an older one.
/// With so many, most are still there after a second of ten thousand guesses.
const MAX_REFUSED: usize = 1 << 16;
/// A token that comes again after more seconds than this is new.
const MAX_RETRY_AGE_S: u16 = 3_600;
/// Retries of one network: one a second, and this many at one time.
const RETRY_BURST: u32 = 10;

/// For so long a network is one from which a good token came.
const GOOD_FOR_MS: u64 = 3_600_000;

/// The failed authentications that the workers of a process have seen of late, bounded in number.
pub struct Failures {
    /// Failures of one network; `None`: any number.
    failures: Option<NetworkLimiter>,
    /// Retries of networks that have failed too often.
    retries: NetworkLimiter,
    /// Look-ups that found nothing, of all clients: first attempts and retries.
    first_lookups: RateLimiter,
    retry_lookups: RateLimiter,
    /// The same for networks of which good tokens came.
    reserved_lookups: RateLimiter,
    /// One event of a network an hour at most: a good token.
    good_networks: NetworkLimiter,
    refused: Box<[AtomicU64]>,
    began: Instant,
}

/// Permission to look a token up, by the share of the look-ups that it is taken from.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) enum LookupPermit {
    #[default]
    First,
    Retry,
    Reserved,
}

impl Failures {
    /// None so far.
    pub fn new(limits: &FailureLimits) -> Self {
        let by_network = |rate| NetworkLimiter::new(rate, limits.ipv4_prefix, limits.ipv6_prefix);
        let lookups = |count| RateLimiter::new(Rate::new(count, 1_000));
        let rate = limits.limit.map(|(count, window_ms)| Rate::new(count.get(), window_ms.get().into()));
        Self {
            failures: rate.map(by_network),
            retries: by_network(Rate::new(RETRY_BURST, u64::from(RETRY_BURST) * 1_000)),
            first_lookups: lookups(limits.lookups),
            retry_lookups: lookups(limits.lookups / 4),
            reserved_lookups: lookups(limits.lookups / 4),
            good_networks: by_network(Rate::new(1, GOOD_FOR_MS)),
            refused: (0..MAX_REFUSED).map(|_| AtomicU64::new(0)).collect(),
            began: Instant::now(),
        }
    }

    /// Whether a token that is not known here may be looked up for this client.
    pub(super) fn permit_lookup(&self, client: IpAddr, hash: &TokenHash) -> Result<LookupPermit, Refusal> {
        self.permit_lookup_at(client, hash, self.now_us())
    }

    fn permit_lookup_at(&self, client: IpAddr, hash: &TokenHash, now_us: u64) -> Result<LookupPermit, Refusal> {
        let wait_us = self.wait_us(client, now_us);
        if wait_us == 0 && self.first_lookups.wait_us(now_us) == 0 {
            return Ok(LookupPermit::First);
        }
        let has_reserve =
            || self.reserved_lookups.wait_us(now_us) == 0 && self.good_networks.wait_us(client, now_us) > 0;
        if wait_us == 0 && has_reserve() {
            return Ok(LookupPermit::Reserved);
        }
        let is_retry = self.is_retry(hash.first_64_bits(), now_us) && self.retry_lookups.wait_us(now_us) == 0;
        if is_retry && (wait_us == 0 || self.retries.try_record(client, now_us)) {
            return Ok(LookupPermit::Retry);
        }
        if wait_us == 0 { Err(Refusal::LookupsExhausted) } else { Err(too_many(wait_us)) }
    }

    /// A look-up found nothing: it counts against the client and against all.
    pub(super) fn record_miss(&self, client: IpAddr, permit: LookupPermit) {
        let now_us = self.now_us();
        let lookups = match permit {
            LookupPermit::First => &self.first_lookups,
            LookupPermit::Retry => return self.retry_lookups.record(now_us),
            LookupPermit::Reserved => &self.reserved_lookups,
        };
        lookups.record(now_us);
        self.record(client, now_us);
    }

    /// A look-up found a good token of this client.
    pub(super) fn record_success(&self, client: IpAddr) {
        self.good_networks.try_record(client, self.now_us());
    }

    /// Counts a token that failed without a look-up, and returns why it is refused: for too many failures, if there were too many.
    /// Other refusals are no failures.
    pub(super) fn record_failure(&self, client: IpAddr, refusal: Refusal) -> Refusal {
        if !matches!(refusal, Refusal::Invalid(_)) {
            return refusal;
        }
        let now_us = self.now_us();
        let wait_us = self.wait_us(client, now_us);
        if wait_us > 0 {
            return too_many(wait_us);
        }
        self.record(client, now_us);
        refusal
    }

    /// Microseconds until this client may fail again.
    fn wait_us(&self, client: IpAddr, now_us: u64) -> u64 {
        self.failures.as_ref().map_or(0, |failures| failures.wait_us(client, now_us))
    }

    fn record(&self, client: IpAddr, now_us: u64) {
        if let Some(failures) = &self.failures {
            failures.record(client, now_us);
        }
    }

    /// Whether this token was refused some seconds ago. If not, it is remembered from now on.
    fn is_retry(&self, fingerprint: u64, now_us: u64) -> bool {
        // 48 bits of the fingerprint, and seconds modulo 2^16; 0 is no token.
        let seconds = (now_us / 1_000_000) as u16;
        let tag = (fingerprint >> 16).max(1);
        let slot = &self.refused[fingerprint as usize % MAX_REFUSED];
        let before = slot.load(Ordering::Relaxed);
        let waited = if before >> 16 == tag { seconds.wrapping_sub(before as u16) } else { u16::MAX };
        if waited == 0 {
            return false;
        }
        let again = waited <= MAX_RETRY_AGE_S;
        slot.store(if again { 0 } else { tag << 16 | u64::from(seconds) }, Ordering::Relaxed);
        again
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

    #[test]
    fn a_client_that_fails_too_often_is_refused_and_others_are_not() {
        let (failures, now) = (failures(1_000), 5 * SECOND);
        for _ in 0..60 {
            assert_eq!(failures.wait_us(ip("192.0.2.1"), now), 0);
            failures.record(ip("192.0.2.1"), now);
        }
        let hash = TokenHash::of("x");
        let refused = failures.permit_lookup_at(ip("192.0.2.1"), &hash, now).unwrap_err();
        assert_eq!(refused, Refusal::TooManyFailures { retry_after_s: 1 });
        assert!(failures.permit_lookup_at(ip("192.0.2.2"), &hash, now).is_ok());
    }

    #[test]
    fn a_retry_after_the_wait_is_looked_up_once_and_a_guess_is_not() {
        let (failures, now) = (failures(1_000), 5 * SECOND);
        let client = ip("192.0.2.1");
        for _ in 0..200 {
            failures.record(client, now);
        }
        let good = TokenHash::of("good");
        assert!(failures.permit_lookup_at(client, &good, now).is_err());
        assert!(failures.permit_lookup_at(client, &good, now + SECOND / 2).is_err(), "it did not wait");
        for guess in 0..500 {
            assert!(failures.permit_lookup_at(client, &TokenHash::of(&guess.to_string()), now).is_err());
        }
        assert!(failures.permit_lookup_at(client, &good, now + SECOND).unwrap() == LookupPermit::Retry);
        assert!(failures.permit_lookup_at(client, &good, now + SECOND).is_err(), "once");
        // Guessing twice each time has a bound of its own.
        let later = now + 2 * SECOND;
        let passed = (0..500)
            .filter(|guess| failures.permit_lookup_at(client, &TokenHash::of(&guess.to_string()), later).is_ok());
        assert_eq!(passed.count(), 10);
    }

    #[test]
    fn a_flood_of_guesses_leaves_look_ups_to_networks_of_good_tokens() {
        let failures = failures(100);
        failures.record_success(ip("192.0.2.1"));
        let good = |client, token: u32| failures.permit_lookup(ip(client), &TokenHash::of(&format!("good {token}")));
        let mut refused = false;
        for guess in 0..10_000_u32 {
            let client = IpAddr::V4((0x0a00_0000 + guess).into());
            match failures.permit_lookup(client, &TokenHash::of(&guess.to_string())) {
                Ok(permit) => failures.record_miss(client, permit),
                Err(_) => refused = true,
            }
            assert!(good("192.0.2.1", guess).is_ok(), "after {guess} guesses");
        }
        assert!(refused, "the guesses are bounded");
        // Guesses from such a network are bounded as well.
        let permits = (0..10_000).filter_map(|guess| good("192.0.2.1", guess).ok());
        let mut looked_up = 0;
        for permit in permits {
            failures.record_miss(ip("192.0.2.1"), permit);
            looked_up += 1;
        }
        // One more a second is forgiven.
        assert!(looked_up <= 61 + failures.began.elapsed().as_secs(), "{looked_up}");
    }

    #[test]
    fn look_ups_that_find_nothing_are_bounded_over_all_clients() {
        let failures = failures(100);
        let mut asked = 0;
        for guess in 0..10_000_u32 {
            let client = IpAddr::V4((0x0a00_0000 + guess).into());
            match failures.permit_lookup(client, &TokenHash::of(&guess.to_string())) {
                Ok(permit) => {
                    failures.record_miss(client, permit);
                    asked += 1;
                }
                Err(refusal) => assert_eq!(refusal, Refusal::LookupsExhausted),
            }
        }
        let seconds = failures.began.elapsed().as_secs();
        assert!((100..=110 + 100 * (seconds + 1)).contains(&asked), "{asked} in {seconds} s");
        assert!(asked < 10_000, "none was refused");
    }
}
