//! Self-signed certificates for trials: no client trusts them unless it is told to.

use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(86_400);
/// Some clients refuse certificates that are valid for longer than 825 days. It begins a day ago, for clocks that are late.
const VALID: Duration = Duration::from_secs(365 * 86_400);

/// A certificate and its private key, in PEM form.
pub(crate) struct TrialCertificate {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl TrialCertificate {
    /// Makes one for names and addresses.
    ///
    /// # Errors
    /// When a name can't be in a certificate, or there is no randomness.
    pub(crate) fn new(names: Vec<String>) -> Result<Self, rcgen::Error> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::new(names)?;
        let now = SystemTime::now();
        (params.not_before, params.not_after) = ((now - DAY).into(), (now + VALID).into());
        Ok(Self { cert: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
    }
}
