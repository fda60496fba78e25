//! `upstreams`: named services and their addresses.

use std::collections::HashMap;
use std::sync::Arc;

use super::address::parse_endpoint;
use super::balancing::balancing;
use super::tls::{client_tls, server_name};
use crate::config::units::{DAY, HOUR, MILLISECOND, MINUTE, SECOND};
use crate::config::{
    Endpoint, EndpointShare, Field, HeaderCase, HostHeader, Protocol, Section, Upstream, UpstreamTlsSettings, is_name,
    quoted,
};

/// Upstreams in the order of the file, with the fields that define them.
#[derive(Default)]
pub(super) struct UpstreamTable<'a> {
    pub(super) compiled: Vec<Arc<Upstream>>,
    pub(super) fields: Vec<Field<'a>>,
    /// The index of each name in the two.
    pub(super) indices: HashMap<&'a str, usize>,
}

pub(super) fn upstreams<'a>(file: &Section<'a>) -> UpstreamTable<'a> {
    let mut upstreams = UpstreamTable::default();
    let remedy = "for example `upstreams: { api: { endpoints: [\"http://127.0.0.1:3000\"] } }`";
    let Some(field) = file.require("upstreams", remedy) else { return upstreams };
    if field.is_empty_map() {
        field.error(format!("is empty ({remedy})"));
    }
    for (name, field) in field.names() {
        upstreams.indices.insert(name, upstreams.compiled.len());
        upstreams.compiled.push(Arc::new(upstream(name, &field)));
        upstreams.fields.push(field);
    }
    upstreams
}

fn upstream(name: &str, field: &Field<'_>) -> Upstream {
    let set = "A-Z a-z 0-9 _ . -";
    if !is_name(name, 64, set) {
        field.error(format!("a name must be 1 to 64 characters out of {set}, not {}", quoted(name)));
    }
    let s = field.section();
    let (endpoints, shares) = endpoints(&s);
    let uses_tls = endpoints.iter().any(|endpoint| endpoint.tls);
    let hosts = [("preserve", HostHeader::Preserve), ("endpoint", HostHeader::Endpoint)];
    let protocols = [("http1", Protocol::Http1), ("http2", Protocol::Http2), ("auto", Protocol::Auto)];
    let protocol = s.or("protocol", Protocol::Http1, |f| f.choice(&protocols));
    if protocol == Protocol::Auto && !uses_tls {
        s.field_of("protocol").warn(
            "auto needs TLS, and no endpoint starts with https:// (write http2 if the service accepts it without TLS, else http1)",
        );
    }
    let cases = [("lower", HeaderCase::Lower), ("title", HeaderCase::Title), ("preserve", HeaderCase::Preserve)];
    let header_case = s.or("header_case", HeaderCase::Lower, |f| f.choice(&cases));
    if header_case != HeaderCase::Lower && protocol == Protocol::Http2 {
        s.field_of("header_case").warn("is not used: HTTP/2 has lower case only (remove it, or use HTTP/1.1)");
    }
    // As many as clients may have by default: each call holds one on either side.
    let max_connections = s.or("max_connections", 10_000, |f| f.number(1..=100_000));
    Upstream {
        name: Arc::from(name),
        endpoints,
        protocol,
        host: s.or("host", HostHeader::Preserve, |f| f.choice(&hosts)),
        header_case,
        connect_timeout: s.or("connect_timeout", 2 * SECOND, |f| f.duration(10 * MILLISECOND..=MINUTE)),
        first_byte_timeout: s.or("first_byte_timeout", 30 * SECOND, |f| f.duration(10 * MILLISECOND..=HOUR)),
        idle_timeout: s.or("idle_timeout", MINUTE, |f| f.duration(100 * MILLISECOND..=DAY)),
        keep_alive: s.or("keep_alive", 50 * SECOND, |f| f.duration(SECOND..=HOUR)),
        max_idle: s.or("max_idle", 64, |f| f.number(0..=10_000)),
        max_connections,
        // The rest is for requests, which are over soon.
        max_calls: s.or("max_calls", (max_connections * 9 / 10).max(1), |f| f.number(1..=max_connections)),
        ping: s.optional("ping", |f| f.duration(SECOND..=HOUR)),
        max_lifetime: s.or("max_lifetime", None, |f| f.or_none(|f| f.duration(SECOND..=7 * DAY))),
        resolve_interval: s.or("resolve_interval", 10 * SECOND, |f| f.duration(SECOND..=HOUR)),
        tls: tls(&s, uses_tls),
        balancing: balancing(&s, shares, protocol),
    }
}

fn tls(s: &Section<'_>, is_used: bool) -> UpstreamTlsSettings {
    if !is_used {
        for field in ["ca", "cert", "key", "server_name", "min_version"].into_iter().filter_map(|key| s.get(key)) {
            field.warn("is not used: no endpoint starts with https:// (remove it, or use TLS)");
        }
    }
    let (ca, client) = client_tls(s);
    UpstreamTlsSettings {
        ca,
        client,
        server_name: s.optional("server_name", server_name),
        only_tls13: s.or("min_version", false, |f| f.choice(&[("1.2", false), ("1.3", true)])),
    }
}

/// The addresses, and the share of each.
fn endpoints(s: &Section<'_>) -> (Vec<Endpoint>, Vec<EndpointShare>) {
    let remedy = "at least one address, for example [\"http://10.0.0.11:3000\"]";
    let (mut endpoints, mut shares) = (Vec::new(), Vec::new());
    let Some(list) = s.require("endpoints", remedy) else { return (endpoints, shares) };
    for item in list.some_items(remedy) {
        let (url, share) = url_and_share(&item);
        let Some(url) = url else { continue };
        let endpoint = url.text().and_then(|text| url.accept(parse_endpoint(&text)));
        match endpoint {
            Some(endpoint) if endpoints.contains(&endpoint) => {
                url.error(format!("{endpoint} is given twice (keep one)"));
            }
            Some(endpoint) => {
                endpoints.push(endpoint);
                shares.push(share);
            }
            None => {}
        }
    }
    if !shares.is_empty() && shares.iter().all(|share| share.backup) {
        list.error("has only backups (at least one endpoint must not be a backup)");
    }
    (endpoints, shares)
}

/// The field of an address, which is alone or in a map.
fn url_and_share<'a>(item: &Field<'a>) -> (Option<Field<'a>>, EndpointShare) {
    if !item.is_map() {
        return (Some(item.clone()), EndpointShare { weight: 1, backup: false });
    }
    let s = item.section();
    let url = s.require("url", "for example http://10.0.0.11:3000");
    let weight = s.or("weight", 1, |f| f.number(1..=100));
    (url, EndpointShare { weight, backup: s.or("backup", false, Field::flag) })
}
