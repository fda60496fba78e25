//! `upstreams`: named services and their addresses.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::config::balancing::Part;
use crate::config::place::shown;
use crate::config::reader::{Field, Section};
use crate::config::upstream::{Endpoint, EndpointAddress, HostHeader, Protocol, Upstream};

use super::balancing::{balancing, part};
use super::upstream_tls::upstream_tls;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// Upstreams in the order of the file, with the fields that define them.
pub(super) struct Upstreams<'a> {
    pub(super) compiled: Vec<Arc<Upstream>>,
    pub(super) fields: Vec<Field<'a>>,
    /// Where each name is in the two.
    pub(super) indices: HashMap<&'a str, usize>,
}

pub(super) fn upstreams<'a>(file: &Section<'a>) -> Upstreams<'a> {
    let mut upstreams = Upstreams { compiled: Vec::new(), fields: Vec::new(), indices: HashMap::new() };
    let remedy = "for example `upstreams: { api: { endpoints: [\"http://127.0.0.1:3000\"] } }`";
    let Some(field) = file.require("upstreams", remedy) else { return upstreams };
    let named = field.names();
    if named.is_empty() && field.is_map() {
        field.error(format!("is empty ({remedy})"));
    }
    for (name, field) in named {
        upstreams.indices.insert(name, upstreams.compiled.len());
        upstreams.compiled.push(Arc::new(upstream(name, &field)));
        upstreams.fields.push(field);
    }
    upstreams
}

fn upstream(name: &str, field: &Field<'_>) -> Upstream {
    if !(1..=64).contains(&name.len()) || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        field.error(format!("a name must be 1 to 64 characters out of A-Z a-z 0-9 _ . -, not {}", shown(name)));
    }
    let known = &[
        "endpoints",
        "protocol",
        "host",
        "connect_timeout",
        "first_byte_timeout",
        "idle_timeout",
        "keep_alive",
        "max_idle",
        "max_connections",
        "max_lifetime",
        "resolve_interval",
        "ping",
        "ca",
        "balance",
        "slow_start",
        "health",
        "ejection",
        "retry",
        "max_requests",
        "max_waiting",
        "max_wait",
        "cert",
        "key",
        "server_name",
        "min_version",
    ];
    let s = field.section(known);
    let (endpoints, parts) = endpoints(&s);
    let host = [("preserve", HostHeader::Preserve), ("endpoint", HostHeader::Endpoint)];
    let protocols = [("http1", Protocol::Http1), ("http2", Protocol::Http2), ("auto", Protocol::Auto)];
    let tls = upstream_tls(&s, endpoints.iter().any(|endpoint| endpoint.tls));
    let protocol = s.or("protocol", Protocol::Http1, |f| f.choice(&protocols));
    let upstream = Upstream {
        name: Arc::from(name),
        endpoints,
        balancing: balancing(&s, parts, protocol),
        tls,
        protocol,
        host: s.or("host", HostHeader::Preserve, |f| f.choice(&host)),
        connect_timeout: s.or("connect_timeout", 2 * SECOND, |f| f.duration(10 * MILLISECOND..=MINUTE)),
        first_byte_timeout: s.or("first_byte_timeout", 30 * SECOND, |f| f.duration(10 * MILLISECOND..=HOUR)),
        idle_timeout: s.or("idle_timeout", MINUTE, |f| f.duration(100 * MILLISECOND..=24 * HOUR)),
        keep_alive: s.or("keep_alive", 50 * SECOND, |f| f.duration(SECOND..=HOUR)),
        max_idle: s.or("max_idle", 64, |f| f.number(0..=10_000)),
        max_connections: s.or("max_connections", 1_000, |f| f.number(1..=100_000)),
        ping: s.or("ping", None, |f| f.duration(SECOND..=HOUR).map(Some)),
        max_lifetime: s.or("max_lifetime", None, |f| f.duration_or_none(SECOND..=7 * 24 * HOUR)),
        resolve_interval: s.or("resolve_interval", 10 * SECOND, |f| f.duration(SECOND..=HOUR)),
    };
    if upstream.protocol == Protocol::Auto && !upstream.endpoints.iter().any(|endpoint| endpoint.tls) {
        s.field_of("protocol").warn(
            "auto is a question of TLS, and no endpoint starts with https:// (write http2 if the service speaks it in clear, else http1)",
        );
    }
    upstream
}

/// The addresses, and what each is given.
fn endpoints(s: &Section<'_>) -> (Vec<Endpoint>, Vec<Part>) {
    let remedy = "at least one address, for example [\"http://10.0.0.11:3000\"]";
    let Some(list) = s.require("endpoints", remedy) else { return Default::default() };
    let items = list.items();
    if items.is_empty() && list.is_list() {
        list.error(format!("is empty ({remedy})"));
    }
    let (mut endpoints, mut parts) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
    for item in items {
        let Some((url, part)) = endpoint_and_part(&item) else { continue };
        let Some(text) = url.text() else { continue };
        match endpoint(&text) {
            Ok(endpoint) if endpoints.contains(&endpoint) => {
                url.error(format!("{endpoint} is given twice (keep one)"));
            }
            Ok(endpoint) => {
                endpoints.push(endpoint);
                parts.push(part);
            }
            Err(message) => url.error(message),
        }
    }
    (endpoints, parts)
}

/// An address alone, or a map that holds it.
fn endpoint_and_part<'a>(item: &Field<'a>) -> Option<(Field<'a>, Part)> {
    if !item.is_map() {
        return Some((item.clone(), Part { weight: 1, backup: false }));
    }
    let s = item.section(&["url", "weight", "backup"]);
    let part = part(&s);
    Some((s.require("url", "for example http://10.0.0.11:3000")?, part))
}

/// Messages repeat nothing of the address: it may hold a password where none belongs.
pub(super) fn endpoint(text: &str) -> Result<Endpoint, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path).map(|address| Endpoint { tls: false, address });
    }
    let (tls, authority) = match text.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        _ => {
            let remedy = "for example \"http://10.0.0.11:3000\", or \"unix:/run/api.sock\"";
            return Err(format!("must start with http:// or https:// ({remedy})"));
        }
    };
    if authority.contains('@') {
        return Err("must not hold a user or password (the service behind gets the client's own headers)".to_owned());
    }
    if let Some(end) = authority.find(['/', '?', '#']) {
        return Err(if authority.ends_with('/') && end + 1 == authority.len() {
            "must end after the port (remove the slash)".to_owned()
        } else {
            "must end after the port: a path or query is not supported (requests keep the client's own)".to_owned()
        });
    }
    let (host, port) = split_port(authority)?;
    let port = match port {
        None if tls => 443,
        None => 80,
        Some(port) => port
            .parse()
            .ok()
            .filter(|number| *number != 0 && port.bytes().all(|b| b.is_ascii_digit()))
            .ok_or("the port must be a whole number from 1 to 65535")?,
    };
    Ok(Endpoint { tls, address: EndpointAddress::Tcp { host: Arc::from(host), port } })
}

/// Bytes of a Unix socket's path: what the kernel's address holds, less the zero at its end.
const LONGEST_SOCKET_PATH: usize = 107;

fn unix(path: &str) -> Result<EndpointAddress, String> {
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return Err("a Unix socket needs an absolute path (for example \"unix:/run/api.sock\")".to_owned());
    }
    if path.len() > LONGEST_SOCKET_PATH {
        return Err(format!("the path of a Unix socket has at most {LONGEST_SOCKET_PATH} bytes"));
    }
    Ok(EndpointAddress::Unix(Arc::from(Path::new(path))))
}

/// Whether this is a host, with a port if need be, as `Host` has it.
pub(super) fn is_authority(text: &str) -> bool {
    matches!(split_port(text), Ok((_, port)) if port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0)))
}

/// The host without brackets, and what stands behind the colon.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, behind) =
            rest.split_once(']').ok_or("an IPv6 address must end with a bracket (for example [::1])")?;
        if host.parse::<Ipv6Addr>().is_err() {
            return Err("what stands in brackets must be an IPv6 address (for example [::1])".to_owned());
        }
        return match behind.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if behind.is_empty() => Ok((host, None)),
            None => Err("only a colon and a port may follow the bracket (for example [::1]:3000)".to_owned()),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    if port.is_some_and(|port| port.contains(':')) {
        return Err("an IPv6 address must stand in brackets (for example http://[::1]:3000)".to_owned());
    }
    if !is_host(host) {
        return Err("must name a host or an IP address between the slashes and the port".to_owned());
    }
    Ok((host, port))
}

/// A host name (RFC 1123, underscores allowed as container platforms use them) or an IPv4 address.
pub(super) fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // The root's dot, in names that are not to be searched for.
    let host = host.strip_suffix('.').unwrap_or(host);
    let numeric = host.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    host.len() <= 253 && host.split('.').all(label) && (!numeric || host.parse::<Ipv4Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_endpoints() {
        for (text, shown) in [
            ("http://10.0.0.11:3000", "http://10.0.0.11:3000"),
            ("http://media", "http://media:80"),
            ("https://media.internal", "https://media.internal:443"),
            ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
            ("http://[::1]", "http://[::1]:80"),
            ("unix:/run/my app.sock", "unix:/run/my app.sock"),
            ("http://my_service-1.ns.svc.cluster.local.:1", "http://my_service-1.ns.svc.cluster.local.:1"),
        ] {
            assert_eq!(endpoint(text).map(|endpoint| endpoint.to_string()).as_deref(), Ok(shown));
        }
    }

    #[test]
    fn refuses_other_addresses() {
        for text in [
            "",
            "http://",
            "10.0.0.1:80",
            "ftp://a",
            "HTTP://a",
            "http://a:0",
            "http://a:65536",
            "http://a:+1",
            "http://a:",
            "http://::1:80",
            "http://[::1",
            "http://[::1]80",
            "http://[a]",
            "http://10.0.0.300",
            "http://1.2.3",
            "http://a b",
            "http://-a",
            "http://a..b",
            "http://u:p@a",
            "http://a/",
            "http://a/b",
            "http://a?b",
            "http://a#b",
            "http://ä",
            "unix:",
            "unix:api.sock",
            "unix:/run/",
            "unix:/\0",
            &format!("unix:/{}", "a".repeat(107)),
        ] {
            assert!(endpoint(text).is_err(), "{text:?} was read as an endpoint");
        }
    }
}
