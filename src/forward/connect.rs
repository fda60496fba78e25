//! A connection to one endpoint: TCP, TLS where asked for, and hyper's client on top.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

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
use crate::config::{Endpoint, Upstream};
use crate::deadline::Patient;

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
    connector: TlsConnector,
    name: ServerName<'static>,
}

/// What all TLS endpoints of an upstream share; `None` when none speaks TLS.
///
/// # Errors
/// [`UpstreamError`].
pub(super) fn connector(upstream: &Upstream) -> Result<Option<TlsConnector>, UpstreamError> {
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
    Ok(Some(TlsConnector::from(Arc::new(config))))
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
    connector: Option<&TlsConnector>,
) -> Result<Option<UpstreamTls>, UpstreamError> {
    let (true, Some(connector)) = (endpoint.tls, connector) else { return Ok(None) };
    let name =
        ServerName::try_from(endpoint.host.to_string()).map_err(|_| UpstreamError::ServerName(endpoint.clone()))?;
    Ok(Some(UpstreamTls { connector: connector.clone(), name }))
}

/// Makes a connection and starts its task. It breaks off when the endpoint takes nothing of what is sent for `patience`.
pub(super) async fn connect(
    endpoint: &Endpoint,
    tls: Option<&UpstreamTls>,
    patience: Duration,
) -> io::Result<SendRequest<Body>> {
    let socket = TcpStream::connect((&*endpoint.host, endpoint.port)).await?;
    socket.set_nodelay(true)?;
    match tls {
        None => handshake(Patient::new(socket, patience)).await,
        Some(tls) => {
            let stream = tls.connector.connect(tls.name.clone(), socket).await?;
            handshake(Patient::new(stream, patience)).await
        }
    }
}

async fn handshake<S>(io: S) -> io::Result<SendRequest<Body>>
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
    Ok(sender)
}
