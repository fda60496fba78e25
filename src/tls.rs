//! Certificates and keys from PEM files, and TLS towards servers: for the listener, upstreams, Redis and the checks of a configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    ALL_VERSIONS, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedProtocolVersion, version,
};
use x509_parser::time::ASN1Time;

use crate::certificates;

/// Why TLS can't be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file can't be read, or does not hold what it should.
    #[error("{path}: {reason}", path = .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Key and certificate do not match, or rustls does not support their kind.
    #[error("{cert} and {key} do not belong together", cert = .cert.display(), key = .key.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
    /// The host of a server is neither a name nor an address.
    #[error("{0}: not a name that a certificate can carry")]
    ServerName(String),
    /// rustls refuses the settings.
    #[error("TLS settings")]
    Settings(#[source] rustls::Error),
}

impl TlsError {
    pub(crate) fn pem(path: &Path, reason: impl ToString) -> Self {
        Self::Pem { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// The cryptography that every connection uses.
pub(crate) fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

/// TLS 1.3 and, unless `only_tls13`, TLS 1.2 (RFC 9325 §3.1.1).
pub(crate) fn versions(only_tls13: bool) -> &'static [&'static SupportedProtocolVersion] {
    static ONLY_TLS13: [&SupportedProtocolVersion; 1] = [&version::TLS13];
    if only_tls13 { &ONLY_TLS13 } else { ALL_VERSIONS }
}

/// The certificates of a file, at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates::certificates(path).map_err(|reason| TlsError::pem(path, reason))
}

/// The first private key of a file.
pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    certificates::private_key(path).map_err(|reason| TlsError::pem(path, reason))
}

/// Certificates that may sign others.
///
/// # Errors
/// [`TlsError::Pem`] when one can't be parsed.
pub(crate) fn roots(path: &Path, certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).map_err(|error| TlsError::pem(path, error))?;
    }
    Ok(roots)
}

/// TLS as a client. `ca`: the trusted certificates in place of the system's. `client`: certificate and key for servers that ask for one.
pub(crate) fn client_config(
    ca: Option<&Path>,
    client: Option<(&Path, &Path)>,
    only_tls13: bool,
) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(provider());
    let pinned = ca.map(certificates).transpose()?.unwrap_or_default();
    let roots = match ca {
        Some(path) => roots(path, &pinned)?,
        None => {
            let mut roots = RootCertStore::empty();
            // A system certificate that can't be parsed is skipped: no server presents one.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        }
    };
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions(only_tls13))
        .map_err(TlsError::Settings)?;
    let config = match WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build() {
        Ok(signed) => config.dangerous().with_custom_certificate_verifier(Arc::new(PinnedOrSigned { signed, pinned })),
        // There are no certificates of the system: every server is refused.
        Err(_) => config.with_root_certificates(RootCertStore::empty()),
    };
    match client {
        None => Ok(config.with_no_client_auth()),
        Some((cert, key)) => {
            config.with_client_auth_cert(certificates(cert)?, private_key(key)?).map_err(TlsError::Settings)
        }
    }
}

/// Trust in what the certificates of a file have signed, and in themselves: a self-signed certificate is often marked as that of an
/// authority, which may not be a server's otherwise.
#[derive(Debug)]
struct PinnedOrSigned {
    signed: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
}

impl PinnedOrSigned {
    /// Checks what remains to be checked of a certificate that is trusted itself: its name and its time.
    fn verify_pinned(
        certificate: &CertificateDer<'_>,
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        verify_server_name(&ParsedCertificate::try_from(certificate)?, server_name)?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let now = i64::try_from(now.as_secs()).ok().and_then(|now| ASN1Time::from_timestamp(now).ok());
        match now {
            Some(now) if now < parsed.validity().not_before => Err(CertificateError::NotValidYet.into()),
            Some(now) if now <= parsed.validity().not_after => Ok(ServerCertVerified::assertion()),
            Some(_) | None => Err(CertificateError::Expired.into()),
        }
    }
}

impl ServerCertVerifier for PinnedOrSigned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.pinned.iter().any(|pinned| pinned == certificate) {
            return Self::verify_pinned(certificate, server_name, now);
        }
        self.signed.verify_server_cert(certificate, intermediates, server_name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}
