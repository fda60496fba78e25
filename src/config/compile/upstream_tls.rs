//! TLS towards an upstream: whom to trust, what to show, which name to ask for.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::config::files::Holds;
use crate::config::model::CertificateFiles;
use crate::config::reader::{Field, Section};
use crate::config::upstream::UpstreamTls;

use super::upstreams::is_host;

/// The keys of an upstream that are about TLS.
const KEYS: [&str; 5] = ["ca", "cert", "key", "server_name", "min_version"];

/// `used`: whether any of the endpoints is spoken to over TLS.
pub(super) fn upstream_tls(s: &Section<'_>, used: bool) -> UpstreamTls {
    let tls = UpstreamTls {
        ca: s.or("ca", None, |f| f.file_of(Holds::Certificates).map(Some)),
        client: client_pair(s).and_then(|(cert, key)| {
            let cert = cert.file_of(Holds::Certificates)?;
            let key = key.file_of(Holds::KeyOf(cert.clone()))?;
            Some(CertificateFiles { cert, key })
        }),
        server_name: s.or("server_name", None, |f| server_name(f).map(Some)),
        only_tls13: s.or("min_version", false, |f| f.choice(&[("1.2", false), ("1.3", true)])),
    };
    if !used {
        for field in KEYS.into_iter().filter_map(|key| s.get(key)) {
            field.warn("is not used: no endpoint starts with https:// (remove it, or use TLS)");
        }
    }
    tls
}

/// `cert` and `key`, which must be given both or not at all.
pub(super) fn client_pair<'a>(s: &Section<'a>) -> Option<(Field<'a>, Field<'a>)> {
    match (s.get("cert"), s.get("key")) {
        (Some(cert), Some(key)) => return Some((cert, key)),
        (Some(_), None) => drop(s.require("key", "the private key of `cert`")),
        (None, Some(_)) => drop(s.require("cert", "the certificate of `key`")),
        (None, None) => {}
    }
    None
}

/// What a certificate can carry: a host name, or an address without brackets.
fn server_name(field: &Field<'_>) -> Option<Arc<str>> {
    let text = field.text()?;
    // A certificate's name has no dot at its end.
    let is_name = is_host(&text) && !text.ends_with('.') && text.parse::<Ipv4Addr>().is_err();
    if is_name || text.parse::<Ipv4Addr>().is_ok() || text.parse::<Ipv6Addr>().is_ok() {
        return Some(text.into());
    }
    field.error(format!(
        "must be a host name or an IP address, without scheme, port or brackets, not {}",
        field.shown()
    ));
    None
}
