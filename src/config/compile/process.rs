//! `trusted_proxies`, `drain` and `runtime`: the process and its surroundings.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::units::{DAY, HOUR, MINUTE, SECOND};
use crate::config::{DrainSettings, Field, Runtime};

/// Networks of proxies that are believed.
pub(super) fn networks(fields: &[Field<'_>]) -> Vec<IpNet> {
    fields.iter().filter_map(network).collect()
}

fn network(field: &Field<'_>) -> Option<IpNet> {
    let text = field.text()?;
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok();
    let what = "a network or an IP address (for example \"10.0.0.0/8\", \"192.0.2.7\" or \"2001:db8::/32\")";
    let network = field.must_be(what, network)?;
    if network.prefix_len() == 0 {
        field.warn("trusts everybody: any client can claim any address (name the networks of your proxies)");
    }
    Some(network.trunc())
}

pub(super) fn drain(field: &Field<'_>) -> DrainSettings {
    let s = field.section();
    DrainSettings {
        delay: s.or("delay", Duration::ZERO, |f| f.duration(Duration::ZERO..=5 * MINUTE)),
        timeout: s.or("timeout", 30 * SECOND, |f| f.duration(SECOND..=DAY)),
        calls: s.or("calls", HOUR, |f| f.duration(Duration::ZERO..=DAY)),
        spread: s.or("spread", 10 * SECOND, |f| f.duration(Duration::ZERO..=HOUR)),
    }
}

pub(super) fn runtime(field: &Field<'_>) -> Runtime {
    let s = field.section();
    let machine = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let given = s.optional("workers", |f| NonZeroUsize::new(f.number(1..=1_024)?));
    Runtime { workers: given.unwrap_or(machine), is_given: given.is_some() }
}
