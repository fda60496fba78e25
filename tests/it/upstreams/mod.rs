//! Protocols and addresses of upstreams: HTTP/2 and gRPC, certificates, names with many addresses, Unix sockets.

mod certificates;
mod grpc;
mod grpc_health;
mod http2;
mod kept_connections;
mod misbehaving;
mod names;
mod negotiated;
mod shared_streams;
mod sockets;

use std::sync::Arc;

use crate::support::gateway::{Gateway, Site, Token};

/// One worker before these endpoints (URLs). `upstream` is more keys of the upstream, `route` more of the route.
fn site(endpoints: &[String], upstream: &str, route: &str) -> Arc<Site> {
    let site = Site::new(&format!(
        "store: memory\ntokens: {{ file: tokens.yaml }}\nroutes: [{{ path: \"/{{*rest}}\", upstream: up{route} }}]\n\
         plans: {{ standard: {{ limits: {{ minute: 100000/1m }} }} }}\n\
         upstreams: {{ up: {{ endpoints: {endpoints:?}{upstream} }} }}"
    ));
    site.replace("workers: 2", "workers: 1");
    site
}

/// [`site`] and a gateway on it.
fn stage(endpoints: &[String], upstream: &str, route: &str) -> (Gateway, Token) {
    let site = site(endpoints, upstream, route);
    let token = site.token(&[]);
    (site.serve(), token)
}
