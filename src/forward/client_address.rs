//! What proxies say of a request: the client's address, and whether it came over HTTPS. Forwarding headers count only from trusted
//! proxies (RFC 7239 §8.1).

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};
use ipnet::IpNet;
use smallvec::SmallVec;

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

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

/// Whether the proxy that sent this request says that it came over HTTPS: in `X-Forwarded-Proto` or `Forwarded`. The proxy's own word is
/// the last one. Where both headers say something, one of them may be the client's, so both must say it.
pub fn came_over_https(headers: &HeaderMap) -> bool {
    let last_line = |name| headers.get_all(name).iter().next_back().map(|line| line.to_str().unwrap_or_default());
    let is_https = |proto: &str| proto.trim().eq_ignore_ascii_case("https");
    let plain = last_line(X_FORWARDED_PROTO).map(|line| is_https(line.rsplit(',').next().unwrap_or_default()));
    let element = last_line(FORWARDED).and_then(|line| split_unquoted(line, ',').last());
    let standard = element.and_then(|element| parameter(element, "proto")).map(is_https);
    plain.or(standard).is_some() && plain.unwrap_or(true) && standard.unwrap_or(true)
}

/// The value of a parameter of one element of `Forwarded`, without its quotes.
fn parameter<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = split_unquoted(element, ';').filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// The address in `for=…` of one element.
fn hop_of_element(element: &str) -> Option<IpAddr> {
    let node = parameter(element, "for")?;
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
    fn the_last_proxy_says_whether_it_was_https() {
        let https = |lines: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
            }
            came_over_https(&headers)
        };
        let (plain, standard) = ("x-forwarded-proto", "forwarded");
        for lines in [
            &[(plain, "https")][..],
            &[(plain, "HTTPS ")],
            &[(plain, "http, https")],
            &[(plain, "http"), (plain, "https")],
            &[(standard, "for=1.2.3.4;proto=https")],
            &[(standard, "proto=http, for=\"[2001:db8::1]\"; Proto=\"https\"")],
            &[(plain, "https"), (standard, "for=1.2.3.4")],
            &[(plain, "https"), (standard, "proto=https")],
        ] {
            assert!(https(lines), "{lines:?}");
        }
        for lines in [
            &[][..],
            &[(plain, "http")],
            &[(plain, "")],
            &[(plain, "httpss")],
            &[(plain, "https, http")],
            &[(plain, "https"), (plain, "http")],
            &[(standard, "for=1.2.3.4")],
            &[(standard, "proto=https, proto=http")],
            &[(standard, "for=\"a;proto=https\"")],
            // One of them is the client's.
            &[(plain, "http"), (standard, "proto=https")],
            &[(plain, "https"), (standard, "proto=http")],
            &[("x-forwarded-scheme", "https"), ("x-forwarded-ssl", "on")],
        ] {
            assert!(!https(lines), "{lines:?}");
        }
    }

    #[test]
    fn an_unreadable_hop_ends_the_search_at_the_last_address_known() {
        assert_eq!(seen(&["1.2.3.4, unknown, 10.0.0.9"], &["10.0.0.0/8"]).to_string(), "10.0.0.9");
        assert_eq!(seen(&[], &["10.0.0.0/8"]).to_string(), "10.0.0.1");
    }
}
