//! The address of the client. Forwarding headers count only from trusted proxies (RFC 7239 §8.1).

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::HeaderName;
use ipnet::IpNet;

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address that a request comes from: the socket's, or, behind trusted proxies, the nearest address in
/// `X-Forwarded-For` that is not a trusted proxy's.
pub fn client_address(headers: &HeaderMap, socket: SocketAddr, trusted: &[IpNet]) -> IpAddr {
    let mut address = socket.ip().to_canonical();
    if !is_trusted(address, trusted) {
        return address;
    }
    for line in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        for hop in line.to_str().unwrap_or_default().rsplit(',') {
            let Some(next) = parse_hop(hop.trim()) else { return address };
            address = next;
            if !is_trusted(address, trusted) {
                return address;
            }
        }
    }
    address
}

/// Whether forwarding headers from this address are trusted.
pub(super) fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// An address, with or without a port.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let address = hop.parse().or_else(|_| hop.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(lines: &[&str], trusted: &[&str]) -> IpAddr {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, line.parse().unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        client_address(&headers, "10.0.0.1:4000".parse().unwrap(), &trusted)
    }

    #[test]
    fn an_untrusted_address_is_not_believed() {
        assert_eq!(seen(&["1.2.3.4"], &[]).to_string(), "10.0.0.1");
        assert_eq!(seen(&["1.2.3.4"], &["10.0.0.2/32"]).to_string(), "10.0.0.1");
    }

    #[test]
    fn behind_trusted_proxies_the_nearest_untrusted_address_counts() {
        assert_eq!(seen(&["6.6.6.6, 1.2.3.4, 10.0.0.9"], &["10.0.0.0/8"]).to_string(), "1.2.3.4");
        assert_eq!(seen(&["6.6.6.6", "1.2.3.4:99", "10.0.0.9"], &["10.0.0.0/8"]).to_string(), "1.2.3.4");
        assert_eq!(seen(&["10.0.0.7, 10.0.0.9"], &["10.0.0.0/8"]).to_string(), "10.0.0.7");
        assert_eq!(seen(&["2001:db8::1"], &["10.0.0.0/8"]).to_string(), "2001:db8::1");
    }

    #[test]
    fn an_unreadable_hop_ends_the_search_at_the_last_address_known() {
        assert_eq!(seen(&["1.2.3.4, unknown, 10.0.0.9"], &["10.0.0.0/8"]).to_string(), "10.0.0.9");
        assert_eq!(seen(&[], &["10.0.0.0/8"]).to_string(), "10.0.0.1");
    }
}
