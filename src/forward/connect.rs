//! A connection to one endpoint: TCP, TLS where asked for, and hyper's client on top.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::body::Body;
use crate::config::{Endpoint, Protocol, Upstream};
use crate::deadline::Patient;

use super::http2::Shared;
use super::pool::{Open, Settings};

/// Why an upstream can't be spoken to as configured.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Its `ca` file can't be used.
    #[error("{path}: {reason}", path = .path.display())]
    Ca {
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

/// TLS towards an upstream.
#[derive(Clone)]
pub(super) struct UpstreamTls {
    connectors: Connectors,
    name: ServerName<'static>,
}

/// What all TLS endpoints of an upstream share. They differ in the protocols that they offer.
#[derive(Clone)]
pub(super) struct Connectors {
    http1: TlsConnector,
    http2: TlsConnector,
    both: TlsConnector,
}

/// A connection on which requests can be sent.
pub(super) enum Connected {
    Http1(SendRequest<Body>, Open),
    Http2(Arc<Shared>),
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
    // A certificate of the system's that can't be read is one that nobody presents.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = &upstream.ca {
        add_ca(&mut roots, path)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(UpstreamError::Settings)?
        .with_root_certificates(roots)
        .with_no_client_auth();
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

fn add_ca(roots: &mut RootCertStore, path: &Path) -> Result<(), UpstreamError> {
    let refuse = |reason: String| UpstreamError::Ca { path: path.to_owned(), reason };
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| refuse(error.to_string()))?;
    let mut found = false;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
        roots.add(certificate).map_err(|error| refuse(error.to_string()))?;
        found = true;
    }
    if found { Ok(()) } else { Err(refuse("holds no certificate in PEM form".to_owned())) }
}

/// TLS towards one endpoint.
///
/// # Errors
/// [`UpstreamError::ServerName`].
pub(super) fn tls_for(
    endpoint: &Endpoint,
    connectors: Option<&Connectors>,
) -> Result<Option<UpstreamTls>, UpstreamError> {
    let (true, Some(connectors)) = (endpoint.tls, connectors) else { return Ok(None) };
    let name =
        ServerName::try_from(endpoint.host.to_string()).map_err(|_| UpstreamError::ServerName(endpoint.clone()))?;
    Ok(Some(UpstreamTls { connectors: connectors.clone(), name }))
}

/// Makes a connection and starts its task. It breaks off when the endpoint takes nothing of what is sent for
/// [`Settings::idle_timeout`].
///
/// # Errors
/// The operating system's, the TLS handshake's, or that the endpoint does not speak the protocol.
pub(super) async fn connect(
    endpoint: &Endpoint,
    tls: Option<&UpstreamTls>,
    protocol: Protocol,
    settings: &Settings,
    open: Open,
) -> io::Result<Connected> {
    let socket = TcpStream::connect((&*endpoint.host, endpoint.port)).await?;
    socket.set_nodelay(true)?;
    let patience = settings.idle_timeout;
    let Some(tls) = tls else {
        let io = Patient::new(socket, patience);
        return if protocol == Protocol::Http2 { http2(io, settings, open).await } else { http1(io, open).await };
    };
    let connector = match protocol {
        Protocol::Http1 => &tls.connectors.http1,
        Protocol::Http2 => &tls.connectors.http2,
        Protocol::Auto => &tls.connectors.both,
    };
    let stream = connector.connect(tls.name.clone(), socket).await?;
    let agreed = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    if protocol == Protocol::Http2 && !agreed {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the other side does not agree to HTTP/2 (ALPN)"));
    }
    let io = Patient::new(stream, patience);
    if agreed { http2(io, settings, open).await } else { http1(io, open).await }
}

async fn http2<S>(io: S, settings: &Settings, open: Open) -> io::Result<Connected>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Shared::handshake(io, settings.ping, open).await.map(Connected::Http2)
}

async fn http1<S>(io: S, open: Open) -> io::Result<Connected>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        // Whoever uses the connection learns of its end by its own error.
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "an upstream connection broke off");
        }
    });
    Ok(Connected::Http1(sender, open))
}
