//! Addresses of upstreams: endpoints, authorities and host names.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use crate::config::{Endpoint, EndpointAddress};

/// Bytes of a Unix socket's path: what the kernel's address holds, less the zero at its end.
const MAX_SOCKET_PATH: usize = 107;

/// Parses `http://HOST[:PORT]`, `https://HOST[:PORT]` or `unix:/PATH`. Messages repeat nothing of the address: it may hold a
/// password where none belongs.
pub(super) fn parse_endpoint(text: &str) -> Result<Endpoint, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return parse_unix(path).map(|address| Endpoint { tls: false, address });
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
        return Err("must not have a user or password (the service gets the client's own headers)".to_owned());
    }
    if let Some(end) = authority.find(['/', '?', '#']) {
        return Err(if authority.ends_with('/') && end + 1 == authority.len() {
            "must end after the port (remove the slash)".to_owned()
        } else {
            "must end after the port: a path or query is not supported (requests keep those of the client)".to_owned()
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

fn parse_unix(path: &str) -> Result<EndpointAddress, String> {
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return Err("a Unix socket needs an absolute path (for example \"unix:/run/api.sock\")".to_owned());
    }
    if path.len() > MAX_SOCKET_PATH {
        return Err(format!("the path of a Unix socket has at most {MAX_SOCKET_PATH} bytes"));
    }
    Ok(EndpointAddress::Unix(Arc::from(Path::new(path))))
}

/// Whether this is a host with an optional port, as in a `Host` header.
pub(super) fn is_authority(text: &str) -> bool {
    matches!(split_port(text), Ok((_, port)) if port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0)))
}

/// The host without brackets, and the text after the colon.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, behind) =
            rest.split_once(']').ok_or("an IPv6 address must end with a bracket (for example [::1])")?;
        if host.parse::<Ipv6Addr>().is_err() {
            return Err("the text in brackets must be an IPv6 address (for example [::1])".to_owned());
        }
        return match behind.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if behind.is_empty() => Ok((host, None)),
            None => Err("only a colon and a port may follow the bracket (for example [::1]:3000)".to_owned()),
        };
    }
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    if port.is_some_and(|port| port.contains(':')) {
        return Err("an IPv6 address must be in brackets (for example http://[::1]:3000)".to_owned());
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
    // The dot of the root, in names that are not completed from search domains.
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
            assert_eq!(parse_endpoint(text).map(|endpoint| endpoint.to_string()).as_deref(), Ok(shown));
        }
    }

    #[test]
    fn rejects_other_addresses() {
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
            assert!(parse_endpoint(text).is_err(), "{text:?} was read as an endpoint");
        }
    }
}
