//! Failed attempts at admin tokens: an address may make a few, and then has to wait.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a failed attempt counts.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered; a new one takes the place of the one that has been quiet for longest.
const MAX_ADDRESSES: usize = 4_096;

/// The failed attempts of the last minute, by address.
pub(super) struct Failures {
    /// Of one address in any [`WINDOW`].
    most: usize,
    by_address: Mutex<HashMap<IpAddr, VecDeque<Instant>>>,
}

impl Failures {
    pub(super) fn new(most: usize) -> Self {
        Self { most, by_address: Mutex::default() }
    }

    /// How long an address must wait before its tokens are looked at again, if it must.
    pub(super) fn wait(&self, client: IpAddr, now: Instant) -> Option<Duration> {
        let failures = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let of_client = failures.get(&network(client))?;
        let oldest = *of_client.get(of_client.len().checked_sub(self.most)?)?;
        (oldest + WINDOW).checked_duration_since(now).filter(|wait| !wait.is_zero())
    }

    /// Counts a failed attempt.
    pub(super) fn count(&self, client: IpAddr, now: Instant) {
        let mut failures = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let client = network(client);
        if failures.len() >= MAX_ADDRESSES && !failures.contains_key(&client) {
            let quietest =
                failures.iter().min_by_key(|(_, of_one)| of_one.back().copied()).map(|(address, _)| *address);
            quietest.and_then(|address| failures.remove(&address));
        }
        let of_client = failures.entry(client).or_default();
        of_client.push_back(now);
        if of_client.len() > self.most {
            of_client.pop_front();
        }
    }
}

/// What one client has for itself: an IPv4 address, or the /64 of an IPv6 one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 10;
    const SECOND: Duration = Duration::from_secs(1);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_waits_until_its_oldest_failure_is_a_minute_old() {
        let (failures, start, client) = (Failures::new(MOST), Instant::now(), address("192.0.2.1"));
        for number in 0..MOST as u32 {
            assert_eq!(failures.wait(client, start + number * SECOND), None);
            failures.count(client, start + number * SECOND);
        }
        assert_eq!(failures.wait(client, start + 10 * SECOND), Some(50 * SECOND));
        assert_eq!(failures.wait(client, start + 59 * SECOND), Some(SECOND));
        assert_eq!(failures.wait(client, start + 60 * SECOND), None);
        failures.count(client, start + 60 * SECOND);
        assert_eq!(failures.wait(client, start + 60 * SECOND), Some(SECOND), "the second oldest counts now");
        assert_eq!(failures.wait(address("192.0.2.2"), start + 60 * SECOND), None, "others don't wait");
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let (failures, now) = (Failures::new(MOST), Instant::now());
        for number in 0..MOST {
            failures.count(address(&format!("2001:db8::{number}")), now);
            failures.count(address("::ffff:192.0.2.1"), now);
        }
        assert!(failures.wait(address("2001:db8::ffff"), now).is_some());
        assert!(failures.wait(address("2001:db8:0:1::1"), now).is_none());
        assert!(failures.wait(address("192.0.2.1"), now).is_some());
    }

    #[test]
    fn any_number_of_addresses_takes_a_bounded_place() {
        let (failures, now) = (Failures::new(MOST), Instant::now());
        let of = |number: u32| IpAddr::from(number.to_be_bytes());
        for number in 0..2 * MAX_ADDRESSES as u32 {
            failures.count(of(number), now + Duration::from_millis(number.into()));
        }
        let remembered = failures.by_address.lock().unwrap();
        assert_eq!(remembered.len(), MAX_ADDRESSES);
        assert!(remembered.contains_key(&of(2 * MAX_ADDRESSES as u32 - 1)) && !remembered.contains_key(&of(0)));
    }
}
