//! The files of certificates: those that listeners show, and TLS towards upstreams and Redis (which certificates to trust, which one
//! to present, which name to expect).

use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::sync::Arc;

use super::address::is_host;
use crate::certificates::Purpose;
use crate::config::{CertificateFiles, Expected, Field, Section};

/// The certificate that a listener shows, by `cert` and `key`.
pub(super) fn certificate_files(s: &Section<'_>, purpose: Purpose) -> Option<CertificateFiles> {
    let cert = s.require("cert", "the PEM file of the chain, leaf first");
    let key = s.require("key", "the PEM file of the private key");
    Field::certificate_files(&cert?, &key?, purpose)
}

/// `ca`, and `cert` with `key`, which must be given both or not at all.
pub(super) fn client_tls(s: &Section<'_>) -> (Option<PathBuf>, Option<CertificateFiles>) {
    let ca = s.optional("ca", |f| f.file(Expected::Trusted));
    let (cert, key) = match (s.get("cert"), s.get("key")) {
        (Some(_), None) => (None, s.require("key", "the private key of `cert`")),
        (None, Some(_)) => (s.require("cert", "the certificate of `key`"), None),
        pair => pair,
    };
    let client = cert.zip(key).and_then(|(cert, key)| Field::certificate_files(&cert, &key, Purpose::Client));
    (ca, client)
}

/// A name that a certificate can have: a host name, or an address without brackets.
pub(super) fn server_name(field: &Field<'_>) -> Option<Arc<str>> {
    let text = field.text()?;
    // A certificate's name has no dot at its end. `is_host` covers IPv4 addresses.
    let is_name = is_host(&text) && !text.ends_with('.') || text.parse::<Ipv6Addr>().is_ok();
    let what = "a host name or an IP address, without scheme, port or brackets";
    field.must_be(what, is_name.then(|| text.into()))
}
