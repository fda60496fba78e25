//! `trusted_proxies`, `log`, `drain` and `runtime`: the process and its surroundings.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tracing_subscriber::filter::Targets;

use crate::config::units::{DAY, HOUR, MINUTE, SECOND};
use crate::config::{DrainSettings, Field, LogFormat, LogSettings, Runtime, hint};

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

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

pub(super) fn log(field: &Field<'_>) -> LogSettings {
    let s = field.section();
    let formats = [("json", LogFormat::Json), ("human", LogFormat::Human)];
    LogSettings {
        format: s.or("format", LogFormat::Json, |f| f.choice(&formats)),
        level: Arc::from(s.or("level", "info".to_owned(), level)),
        access: s.or("access", true, Field::flag),
    }
}

fn level(field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    field.accept(log_level(&text).map_err(|what| what.replace("TEXT", &field.shown())))
}

/// A filter as `log.level` has it; else what it must be, with `TEXT` in the place of the text. A lone word must be a level: `Targets`
/// would take a misspelt one for the name of a module, and log all of it.
pub(crate) fn log_level(text: &str) -> Result<String, String> {
    let text = text.split(',').map(str::trim).collect::<Vec<_>>().join(",");
    let unknown = text.split(',').find(|part| {
        let is_word = !part.contains('=');
        is_word && !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part))
    });
    let levels = unknown.map_or_else(String::new, |word| hint(word, LEVELS.into_iter()));
    let is_filter = unknown.is_none() && !text.contains('[') && text.parse::<Targets>().is_ok();
    let what = "must be a level or a filter such as \"info,callgate=debug\"";
    is_filter.then_some(text).ok_or_else(|| format!("{what}, not TEXT{levels}"))
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
