//! `listen` and `tls`: sockets, what a client may do there, certificates.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::process::networks;
use super::sockets::{self, address};
use super::tls::certificate_files;
use crate::certificates::Purpose;
use crate::config::units::{HOUR, MINUTE, SECOND};
use crate::config::{AdminAddress, EndpointAddress, Expected, Field, ListenSettings, Section, TlsSettings, Upstream};

/// Shorter deadlines than this would cut honest clients off on any network.
const MIN_TIMEOUT: Duration = Duration::from_millis(100);
/// The HTTP/1 reader's buffer can't be smaller than 8 KiB.
const HEAD_BYTES: RangeInclusive<u64> = 8 << 10..=1 << 20;

pub(super) fn listen(field: &Field<'_>) -> ListenSettings {
    let s = field.section();
    let max_connections: usize = s.or("max_connections", 10_000, |f| f.number(1..=1_000_000));
    // One client alone can't shut out the others.
    let half = u32::try_from(max_connections.div_ceil(2)).unwrap_or(u32::MAX);
    let (http, https_from) = s.get("http").map(|field| http(&field)).unwrap_or_default();
    let listen = ListenSettings {
        https: s.or("https", SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8443)), address),
        http,
        https_from,
        redirect: s.or("redirect", false, Field::flag),
        admin: s.or("admin", AdminAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 9901))), sockets::admin),
        health: s.optional("health", address),
        proxy_protocol: s.get("proxy_protocol").map(|f| proxy_protocol(&f)).unwrap_or_default(),
        max_connections,
        max_connections_per_client: s.or("max_connections_per_client", half, |f| f.number(1..=1_000_000)),
        handshake_timeout: s.or("handshake_timeout", 10 * SECOND, |f| f.duration(MIN_TIMEOUT..=5 * MINUTE)),
        header_timeout: s.or("header_timeout", 10 * SECOND, |f| f.duration(MIN_TIMEOUT..=5 * MINUTE)),
        idle_timeout: s.or("idle_timeout", 75 * SECOND, |f| f.duration(SECOND..=HOUR)),
        body_idle_timeout: s.or("body_idle_timeout", MINUTE, |f| f.duration(MIN_TIMEOUT..=HOUR)),
        max_head_bytes: s.or("max_head_bytes", 32 << 10, |f| f.buffer(HEAD_BYTES)),
        max_headers: s.or("max_headers", 100, |f| f.number(1..=100)),
        max_target_bytes: s.or("max_target_bytes", 8 << 10, |f| f.buffer(256..=64 << 10)),
        // Upstreams ask for it.
        remembers_header_case: false,
        max_concurrent_streams: s.or("max_concurrent_streams", 128, |f| f.number(1..=10_000)),
    };
    if listen.redirect && s.get("http").is_none() {
        s.field_of("redirect").error("there is no plain listener to redirect from (set listen.http, or remove it)");
    }
    if listen.max_target_bytes > listen.max_head_bytes {
        let head = listen.max_head_bytes;
        s.field_of("max_target_bytes")
            .error(format!("must not be more than listen.max_head_bytes ({head} bytes), which includes it"));
    }
    let admin = match listen.admin {
        AdminAddress::Tcp(address) => Some(address),
        AdminAddress::Unix(_) => None,
    };
    let sockets = [("https", Some(listen.https)), ("http", listen.http), ("admin", admin), ("health", listen.health)];
    for (index, (key, socket)) in sockets.iter().enumerate() {
        let clash = sockets[..index].iter().find(|(_, other)| other.zip(*socket).is_some_and(|(a, b)| overlap(a, b)));
        if let Some((other, _)) = clash {
            s.field_of(key).error(format!("is the same socket as listen.{other} (choose another port)"));
        }
    }
    listen
}

/// An address alone, or in a map with the proxies that end TLS.
fn http(field: &Field<'_>) -> (Option<SocketAddr>, Vec<IpNet>) {
    if !field.is_map() {
        return (address(field), Vec::new());
    }
    let s = field.section();
    let address = s.require("address", "for example \"0.0.0.0:8080\"").and_then(|field| address(&field));
    let remedy = "the networks of the proxies that end TLS, for example [10.0.0.0/8]";
    (address, s.get("https_from").map(|field| networks(&field.one_or_more(remedy))).unwrap_or_default())
}

/// Warns of upstreams that are this process itself.
pub(super) fn warn_of_circles(file: &Section<'_>, listen: &ListenSettings, upstreams: &[Arc<Upstream>]) {
    let listeners = [("https", Some(listen.https)), ("http", listen.http), ("health", listen.health)];
    for upstream in upstreams {
        for endpoint in &upstream.endpoints {
            let EndpointAddress::Tcp { host, port } = &endpoint.address else { continue };
            let ip =
                host.parse::<IpAddr>().ok().or_else(|| (&**host == "localhost").then_some(Ipv4Addr::LOCALHOST.into()));
            let is_here = |socket: SocketAddr| {
                socket.port() == *port
                    && ip.is_some_and(|ip| ip == socket.ip() || (ip.is_loopback() && socket.ip().is_unspecified()))
            };
            if let Some((key, _)) = listeners.iter().find(|(_, socket)| socket.is_some_and(is_here)) {
                file.field_of("upstreams").warn(format!(
                    "{}: {host}:{port} is listen.{key} of this process, so its requests would go in circles (name the \
                     address of the service)",
                    upstream.name
                ));
            }
        }
    }
}

/// Warns of proxies that end TLS but are not asked who the client is.
pub(super) fn warn_of_nameless_clients(file: &Section<'_>, https_from: &[IpNet], trusted: &[IpNet]) {
    for network in https_from.iter().filter(|network| !trusted.iter().any(|trusted| trusted.contains(*network))) {
        let http = file.field_of("listen").section().field_of("http");
        http.warn(format!(
            "trusted_proxies does not have {network}, so that all clients of these proxies count as one address (add it there)"
        ));
    }
}

fn proxy_protocol(field: &Field<'_>) -> Vec<IpNet> {
    let s = field.section();
    let remedy = "the networks of the proxies that speak it, for example [10.0.0.0/8]";
    s.require("from", remedy).map(|f| networks(&f.one_or_more(remedy))).unwrap_or_default()
}

/// Whether both can't be bound. Port 0 means any free one.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let any = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && (any || a.ip() == b.ip())
}

pub(super) fn tls(field: &Field<'_>) -> TlsSettings {
    let s = field.section();
    let remedy = "name at least one: [{ cert: tls/fullchain.pem, key: tls/privkey.pem }]";
    let certificates = s.require("certificates", remedy).map(|list| list.some_items(remedy)).unwrap_or_default();
    TlsSettings {
        certificates: certificates.iter().filter_map(|f| certificate_files(&f.section(), Purpose::Server)).collect(),
        only_tls13: s.or("min_version", false, |f| f.choice(&[("1.2", false), ("1.3", true)])),
        ticket_keys: s.optional("ticket_keys", |f| f.file(Expected::TicketKeys)),
    }
}
