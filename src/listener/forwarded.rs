//! What services are told of a client (RFC 7239): the same for all requests on a connection, as long as they are for one host. Only what
//! came over HTTPS is forwarded, to Callgate itself or to a proxy that ended TLS.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::OnceLock;

use http::HeaderValue;

use crate::telemetry::push_ip;

/// The client's end of a connection, as services are told of it.
#[derive(Debug)]
pub struct ForwardedClient {
    /// The address at the other end of the connection.
    pub address: SocketAddr,
    first: OnceLock<ForwardedValues>,
}

/// The values of headers.
#[derive(Debug, Clone)]
pub struct ForwardedValues {
    authority: Box<str>,
    /// Of `X-Forwarded-For`: the client's address.
    pub address: HeaderValue,
    /// Of `Forwarded`: `for=…;proto=…;host=…`.
    pub element: HeaderValue,
}

impl ForwardedClient {
    /// A connection from this address.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, first: OnceLock::new() }
    }

    /// The values for a request that asked for this host (and port).
    pub fn values(&self, authority: &str) -> Cow<'_, ForwardedValues> {
        let first = self.first.get_or_init(|| self.values_for(authority));
        if *first.authority == *authority { Cow::Borrowed(first) } else { Cow::Owned(self.values_for(authority)) }
    }

    /// IPv6 addresses and hosts with a port are quoted (RFC 7239 §4).
    fn values_for(&self, authority: &str) -> ForwardedValues {
        let address = self.address.ip().to_canonical();
        let mut text = String::with_capacity("255.255.255.255".len());
        push_ip(&mut text, address);
        let (open, close) = if address.is_ipv6() { ("for=\"[", "]\"") } else { ("for=", "") };
        let host = if authority.is_empty() { ["", "", ""] } else { [";host=\"", authority, "\""] };
        let element = [open, &text, close, ";proto=https", host[0], host[1], host[2]].concat();
        // An address and an authority consist of characters that a header can hold.
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        ForwardedValues { authority: authority.into(), address: value(&text), element: value(&element) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_host_that_was_asked_for() {
        let client = ForwardedClient::new("[2001:db8::1]:7".parse().unwrap());
        let element = |authority| client.values(authority).element.clone();
        assert_eq!(element("a:8443"), r#"for="[2001:db8::1]";proto=https;host="a:8443""#);
        assert_eq!(element(""), r#"for="[2001:db8::1]";proto=https"#);
        assert_eq!(element("b"), r#"for="[2001:db8::1]";proto=https;host="b""#);
        assert_eq!(element("a:8443"), r#"for="[2001:db8::1]";proto=https;host="a:8443""#);
        let mapped = ForwardedClient::new("[::ffff:192.0.2.1]:7".parse().unwrap());
        assert_eq!(mapped.values("").element, "for=192.0.2.1;proto=https");
        assert_eq!(mapped.values("").address, "192.0.2.1");
    }
}
