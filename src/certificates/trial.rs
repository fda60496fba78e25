//! Self-signed certificates for trials: no client trusts them unless it is told to.

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
        let pair = rcgen::generate_simple_self_signed(names)?;
        Ok(Self { cert: pair.cert.pem(), key: pair.signing_key.serialize_pem() })
    }
}
