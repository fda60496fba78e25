//! The address of the client. Forwarding headers count only from trusted proxies (RFC 7239 §8.1).

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};
use ipnet::IpNet;
use smallvec::SmallVec;

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address that a request comes from: the socket's, or, behind trusted proxies, the nearest address in
/// `X-Forwarded-For` that is not a trusted proxy's. Proxies that send no such header are asked by `Forwarded`.
pub fn client_address(headers: &HeaderMap, socket: SocketAddr, trusted: &[IpNet]) -> IpAddr {
    let mut address = socket.ip().to_canonical();
    if !is_trusted(address, trusted) {
        return address;
    }
    // The proxy that is the nearest comes last.
    let mut follow = |hop: Option<IpAddr>| {
        address = hop?;
        is_trusted(address, trusted).then_some(())
    };
    let mut lines = headers.get_all(X_FORWARDED_FOR).iter().rev().peekable();
    let followed = if lines.peek().is_some() {
        lines
            .try_for_each(|line| line.to_str().unwrap_or_default().rsplit(',').map(parse_hop).try_for_each(&mut follow))
    } else {
        forwarded_hops(headers).into_iter().rev().try_for_each(&mut follow)
    };
    // Where it ends is the client, or where it was lost from sight.
    let (Some(()) | None) = followed;
    address
}

/// The hops that `Forwarded` names (RFC 7239 §4), in its order; `None`: one without an address.
pub(super) fn forwarded_hops(headers: &HeaderMap) -> SmallVec<[Option<IpAddr>; 4]> {
    let lines = headers.get_all(FORWARDED).iter().map(|line| line.to_str().unwrap_or_default());
    lines.flat_map(|line| split_unquoted(line, ',')).map(hop_of_element).collect()
}

/// The address in `for=…` of one element.
fn hop_of_element(element: &str) -> Option<IpAddr> {
    let mut pairs = split_unquoted(element, ';').filter_map(|pair| pair.trim().split_once('='));
    let (_, node) = pairs.find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    let node = node.strip_prefix('"').and_then(|node| node.strip_suffix('"')).unwrap_or(node);
    let bare = node.strip_prefix('[').and_then(|node| node.strip_suffix(']'));
    parse_hop(bare.unwrap_or(node))
}

/// Splits at a character, but not within quotes.
fn split_unquoted(text: &str, at: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        let literal = escaped;
        escaped = quoted && !literal && c == '\\';
        if c == '"' && !literal {
            quoted = !quoted;
        }
        c == at && !quoted
    })
}

/// Whether forwarding headers from this address are trusted.
pub(super) fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// An address, with or without a port.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let address = hop.parse().or_else(|_| hop.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(lines: &[&str], trusted: &[&str]) -> IpAddr {
        seen_in(X_FORWARDED_FOR, lines, trusted)
    }

    fn seen_in(name: HeaderName, lines: &[&str], trusted: &[&str]) -> IpAddr {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(&name, line.parse().unwrap());
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
    fn a_proxy_that_sends_forwarded_alone_is_believed_like_any_other() {
        let seen = |lines: &[&str], trusted| seen_in(FORWARDED, lines, trusted).to_string();
        let trusted: &[&str] = &["10.0.0.0/8", "fd00::/8"];
        for (line, client) in [
            ("for=1.2.3.4", "1.2.3.4"),
            ("For=\"1.2.3.4:99\";proto=https", "1.2.3.4"),
            ("proto=http; for=\"[2001:db8::1]\" ;by=10.0.0.1", "2001:db8::1"),
            ("for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("for=6.6.6.6, for=1.2.3.4;host=\"a, for=7.7.7.7\", for=10.0.0.9", "1.2.3.4"),
            ("for=1.2.3.4;x=\"\\\",for=7.7.7.7\"", "1.2.3.4"),
            ("for=1.2.3.4, for=\"[fd00::1]\"", "1.2.3.4"),
            ("for=1.2.3.4, for=_hidden, for=10.0.0.9", "10.0.0.9"),
            ("for=1.2.3.4, for=unknown", "10.0.0.1"),
            ("proto=https", "10.0.0.1"),
            ("for", "10.0.0.1"),
        ] {
            assert_eq!(seen(&[line], trusted), client, "{line}");
        }
        assert_eq!(seen(&["for=6.6.6.6", "for=1.2.3.4", "for=10.0.0.9"], trusted), "1.2.3.4");
        assert_eq!(seen(&["for=1.2.3.4"], &[]), "10.0.0.1");
    }

    #[test]
    fn forwarded_does_not_replace_the_other_header() {
        let mut headers = HeaderMap::new();
        headers.append(X_FORWARDED_FOR, "1.2.3.4".parse().unwrap());
        headers.append(FORWARDED, "for=6.6.6.6".parse().unwrap());
        let address = client_address(&headers, "10.0.0.1:4000".parse().unwrap(), &["10.0.0.0/8".parse().unwrap()]);
        assert_eq!(address.to_string(), "1.2.3.4");
    }

    #[test]
    fn an_unreadable_hop_ends_the_search_at_the_last_address_known() {
        assert_eq!(seen(&["1.2.3.4, unknown, 10.0.0.9"], &["10.0.0.0/8"]).to_string(), "10.0.0.9");
        assert_eq!(seen(&[], &["10.0.0.0/8"]).to_string(), "10.0.0.1");
    }
}
