//! TLS as all clients here use it.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// TLS 1.3 with a server that shows this certificate. There is one cipher suite and one key exchange: which one a server would
/// choose must not decide.
pub(crate) fn client_config(certificate: &Path) -> ClientConfig {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
    provider.kx_groups = vec![kx_group::X25519];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).expect("a certificate")).expect("a good one");
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 with its suite")
        .with_root_certificates(roots)
        .with_no_client_auth()
}
