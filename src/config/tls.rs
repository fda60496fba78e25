//! Certificates.

use std::path::PathBuf;

/// TLS towards clients.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsSettings {
    /// Certificates; the first serves clients whose server name matches none.
    pub certificates: Vec<CertificateFiles>,
    /// Refuse TLS 1.2.
    pub only_tls13: bool,
    /// The file with the keys of session tickets; `None`: random keys of this process.
    pub ticket_keys: Option<PathBuf>,
}

/// The two PEM files of one certificate.
#[derive(Debug, Clone, PartialEq)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}
