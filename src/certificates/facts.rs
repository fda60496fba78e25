//! What a certificate says.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::x509::X509Version;

use super::validity::Validity;

/// What a certificate says.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// DNS names, in lower case.
    pub(crate) names: Vec<String>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) validity: Validity,
    /// The subject, for people.
    pub(super) subject: String,
    pub(super) common_name: Option<String>,
    /// Subject, issuer and public key as they are in the certificate.
    pub(super) subject_der: Vec<u8>,
    pub(super) issuer_der: Vec<u8>,
    pub(super) public_key: Vec<u8>,
    /// Whether it may sign others (`basicConstraints`).
    pub(super) is_authority: bool,
    /// Whether it has version 1, which has no place for names of hosts.
    pub(super) is_version_1: bool,
}

impl Facts {
    /// # Errors
    /// What is wrong with the certificate, as the end of a sentence about its file.
    pub(crate) fn read(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|error| format!("holds a certificate that can't be read: {error}"))?;
        let (names, addresses) = alternative_names(&parsed)?;
        let common_name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let validity = parsed.validity();
        Ok(Self {
            names,
            addresses,
            validity: Validity {
                not_before: validity.not_before.timestamp(),
                not_after: validity.not_after.timestamp(),
            },
            subject: parsed.subject().to_string(),
            common_name: common_name.map(str::to_owned),
            subject_der: parsed.subject().as_raw().to_vec(),
            issuer_der: parsed.issuer().as_raw().to_vec(),
            public_key: parsed.public_key().raw.to_vec(),
            is_authority: parsed.is_ca(),
            is_version_1: parsed.version() == X509Version::V1,
        })
    }

    /// The DNS names and the common name, in lower case.
    pub(crate) fn all_names(self) -> Vec<String> {
        let common_name = self.common_name.map(|name| name.to_ascii_lowercase());
        self.names.into_iter().chain(common_name).collect()
    }

    /// Whether a client could check that it talks to the right host.
    pub(super) fn names_hosts(&self) -> bool {
        !self.names.is_empty() || !self.addresses.is_empty()
    }
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Result<(Vec<String>, Vec<IpAddr>), String> {
    let alternatives = certificate
        .subject_alternative_name()
        .map_err(|error| format!("holds a certificate whose alternative names can't be read: {error}"))?;
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    for name in alternatives.into_iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => {
                let v4 = || <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                addresses.extend(v4().or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)));
            }
            _ => {}
        }
    }
    Ok((names, addresses))
}
