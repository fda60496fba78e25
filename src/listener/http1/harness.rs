//! What tests and fuzz targets have in common: a connection without sockets.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::Http1;
use crate::config::{AdminAddress, ListenSettings};
use crate::listener::head::HeadLimits;
use crate::listener::slot::ConnectionSlots;
use crate::listener::{Handler, Peer, Transport};
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics::new().expect("metrics without a process of their own"));

/// A client's connection, whose requests this handler answers.
pub(super) fn connect<H: Handler, S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    handler: &Arc<H>,
    limits: HeadLimits,
    io: S,
) -> Http1<impl Fn() -> Arc<H> + use<H, S>, H, S> {
    let (peer, settings) = client(limits);
    let handler = handler.clone();
    Http1::new(move || handler.clone(), peer, io, &settings)
}

/// A client, and how it is served.
pub(in crate::listener) fn client(limits: HeadLimits) -> (Arc<Peer>, ListenSettings) {
    let metrics = METRICS.listener("https");
    let slot = Arc::<ConnectionSlots>::default().take(1, &metrics).expect("the first slot");
    let address = ([127, 0, 0, 1], 1).into();
    let peer = Peer::new(address, Transport::Clear, limits, slot, &Shutdown::default());
    let settings = ListenSettings {
        https: address,
        http: None,
        https_from: Vec::new(),
        redirect: false,
        admin: AdminAddress::Tcp(address),
        health: None,
        proxy_protocol: Vec::new(),
        max_connections: 10,
        max_connections_per_client: 10,
        handshake_timeout: Duration::from_secs(10),
        header_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(60),
        body_idle_timeout: Duration::from_secs(10),
        max_head_bytes: limits.bytes,
        max_headers: limits.lines,
        remembers_header_case: false,
        max_target_bytes: limits.target,
        max_concurrent_streams: 10,
    };
    (peer, settings)
}
