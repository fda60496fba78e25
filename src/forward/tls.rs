//! TLS towards an upstream: whom it trusts, what it shows, which protocols it offers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, version};
use tokio_rustls::TlsConnector;

use crate::config::{CertificateFiles, Endpoint, EndpointAddress, Protocol, Upstream};

/// Why an upstream can't be spoken to as configured.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// A PEM file can't be used.
    #[error("{path}: {reason}", path = .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An endpoint's host is neither a name nor an address.
    #[error("{0}: not a name that a certificate can carry")]
    ServerName(Endpoint),
    /// rustls refuses the settings.
    #[error("TLS settings")]
    Settings(#[source] rustls::Error),
}

/// TLS towards one endpoint.
#[derive(Clone)]
pub(super) struct UpstreamTls {
    connectors: Connectors,
    /// What is asked for, and must stand in the certificate.
    pub(super) name: ServerName<'static>,
}

/// What all TLS endpoints of an upstream share. They differ in the protocols that they offer.
#[derive(Clone)]
pub(super) struct Connectors {
    http1: TlsConnector,
    http2: TlsConnector,
    both: TlsConnector,
}

impl UpstreamTls {
    /// What makes connections that offer this protocol.
    pub(super) fn connector(&self, protocol: Protocol) -> &TlsConnector {
        match protocol {
            Protocol::Http1 => &self.connectors.http1,
            Protocol::Http2 => &self.connectors.http2,
            Protocol::Auto => &self.connectors.both,
        }
    }
}

/// Reads what TLS needs; `None` when no endpoint speaks it.
///
/// # Errors
/// [`UpstreamError`].
pub(super) fn connectors(upstream: &Upstream) -> Result<Option<Connectors>, UpstreamError> {
    if !upstream.endpoints.iter().any(|endpoint| endpoint.tls) {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    match &upstream.tls.ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| refuse(path, error))?;
            }
        }
        // A certificate of the system's that can't be read is one that nobody presents.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    let versions: &[_] = if upstream.tls.only_tls13 { &[&version::TLS13] } else { &[&version::TLS13, &version::TLS12] };
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .map_err(UpstreamError::Settings)?
        .with_root_certificates(roots);
    let config = match &upstream.tls.client {
        None => config.with_no_client_auth(),
        Some(CertificateFiles { cert, key }) => {
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| refuse(key, error))?;
            config.with_client_auth_cert(certificates(cert)?, private).map_err(UpstreamError::Settings)?
        }
    };
    let offering = |protocols: &[&[u8]]| {
        let mut config = config.clone();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    };
    Ok(Some(Connectors {
        http1: offering(&[b"http/1.1"]),
        http2: offering(&[b"h2"]),
        both: offering(&[b"h2", b"http/1.1"]),
    }))
}

/// TLS towards one endpoint; `None` when it is spoken to in clear. `server_name`: in place of the endpoint's own.
///
/// # Errors
/// [`UpstreamError::ServerName`].
pub(super) fn tls_for(
    endpoint: &Endpoint,
    connectors: Option<&Connectors>,
    server_name: Option<&str>,
) -> Result<Option<UpstreamTls>, UpstreamError> {
    let (true, Some(connectors)) = (endpoint.tls, connectors) else { return Ok(None) };
    let own = match &endpoint.address {
        EndpointAddress::Tcp { host, .. } => Some(&**host),
        EndpointAddress::Unix(_) => None,
    };
    let name = server_name.or(own).and_then(|name| ServerName::try_from(name.to_owned()).ok());
    let name = name.ok_or_else(|| UpstreamError::ServerName(endpoint.clone()))?;
    Ok(Some(UpstreamTls { connectors: connectors.clone(), name }))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, UpstreamError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found = found.map_err(|error| refuse(path, error))?;
    if found.is_empty() { Err(refuse(path, "holds no certificate in PEM form")) } else { Ok(found) }
}

fn refuse(path: &Path, reason: impl ToString) -> UpstreamError {
    UpstreamError::Pem { path: path.to_owned(), reason: reason.to_string() }
}
