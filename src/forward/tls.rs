//! TLS towards the endpoints of an upstream: certificates, server names, and the protocols that are offered (ALPN).

use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::config::{Endpoint, EndpointAddress, Protocol, Upstream};
use crate::tls::{TlsError, client_config};

/// TLS towards one endpoint.
#[derive(Clone)]
pub(super) struct EndpointTls {
    connectors: Connectors,
    /// The name for SNI, which the certificate must carry.
    pub(super) name: ServerName<'static>,
}

/// One for each [`Protocol`]: they differ in what they offer.
type Connectors = [TlsConnector; 3];

impl EndpointTls {
    /// The connector that offers this protocol.
    pub(super) fn connector(&self, protocol: Protocol) -> &TlsConnector {
        &self.connectors[protocol as usize]
    }
}

/// TLS for each endpoint of an upstream, in their order; `None` for those without it.
pub(super) fn of_endpoints(upstream: &Upstream) -> Result<Vec<Option<EndpointTls>>, TlsError> {
    if !upstream.endpoints.iter().any(|endpoint| endpoint.tls) {
        return Ok(upstream.endpoints.iter().map(|_| None).collect());
    }
    let tls = &upstream.tls;
    let client = tls.client.as_ref().map(|files| (&*files.cert, &*files.key));
    let config = client_config(tls.ca.as_deref(), client, tls.only_tls13)?;
    let connectors = [Protocol::Http1, Protocol::Http2, Protocol::Auto].map(|protocol| {
        let mut config = config.clone();
        let offered: &[&[u8]] = match protocol {
            Protocol::Http1 => &[b"http/1.1"],
            Protocol::Http2 => &[b"h2"],
            Protocol::Auto => &[b"h2", b"http/1.1"],
        };
        config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    });
    let of_endpoint = |endpoint: &Endpoint| {
        let host = match &endpoint.address {
            EndpointAddress::Tcp { host, .. } => Some(host),
            EndpointAddress::Unix(_) => None,
        };
        if !endpoint.tls {
            return Ok(None);
        }
        let name = tls.server_name.as_ref().or(host).and_then(|name| ServerName::try_from(name.to_string()).ok());
        let name = name.ok_or_else(|| TlsError::ServerName(endpoint.to_string()))?;
        Ok(Some(EndpointTls { connectors: connectors.clone(), name }))
    };
    upstream.endpoints.iter().map(of_endpoint).collect()
}
