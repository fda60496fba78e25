//! `trusted_proxies`, `log`, `drain` and `runtime`: the process and its surroundings.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tracing_subscriber::EnvFilter;

use crate::config::model::{Drain, Log, LogFormat, Runtime};
use crate::config::place::hint;
use crate::config::reader::Field;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

pub(super) fn trusted_proxies(field: &Field<'_>) -> Vec<IpNet> {
    field.one_or_many().iter().filter_map(network).collect()
}

/// A network of proxies that are believed.
pub(super) fn network(field: &Field<'_>) -> Option<IpNet> {
    let text = field.text()?;
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let Ok(network) = network else {
        let remedy = "for example \"10.0.0.0/8\", \"192.0.2.7\" or \"2001:db8::/32\"";
        field.error(format!("must be a network or an IP address, not {} ({remedy})", field.shown()));
        return None;
    };
    if network.prefix_len() == 0 {
        field.warn("believes everybody: any client can claim any address (name the networks of your proxies)");
    }
    Some(network.trunc())
}

pub(super) fn log(field: &Field<'_>) -> Log {
    let s = field.section(&["format", "level", "access"]);
    let formats = [("json", LogFormat::Json), ("human", LogFormat::Human)];
    Log {
        format: s.or("format", LogFormat::Json, |f| f.choice(&formats)),
        level: Arc::from(s.or("level", "info".to_owned(), level)),
        access: s.or("access", true, Field::flag),
    }
}

/// A filter. A lone word is a level: `EnvFilter` would take a misspelt one for the name of a module, and log all of it.
fn level(field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    let stray = text.split(',').map(str::trim).find(|part| {
        let word = !part.contains(['=', '[']);
        word && !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part))
    });
    if let Some(stray) = stray {
        let levels = hint(stray, LEVELS.into_iter());
        field.error(format!(
            "must be a level or a filter such as \"info,callgate=debug\", not {}{levels}",
            field.shown()
        ));
        return None;
    }
    if EnvFilter::try_new(&text).is_err() {
        field.error(format!("must be a level or a filter such as \"info,callgate=debug\", not {}", field.shown()));
        return None;
    }
    Some(text)
}

pub(super) fn drain(field: &Field<'_>) -> Drain {
    let s = field.section(&["delay", "timeout"]);
    let (second, day) = (Duration::from_secs(1), Duration::from_secs(86_400));
    Drain {
        delay: s.or("delay", Duration::ZERO, |f| f.duration(Duration::ZERO..=300 * second)),
        timeout: s.or("timeout", 30 * second, |f| f.duration(second..=day)),
    }
}

pub(super) fn runtime(field: &Field<'_>) -> Runtime {
    let s = field.section(&["workers"]);
    let machine = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    Runtime { workers: s.or("workers", machine, |f| NonZeroUsize::new(f.number(1..=1_024)?)) }
}
