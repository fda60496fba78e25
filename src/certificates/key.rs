//! Private keys: which of them TLS can use.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::SigningKey;
use x509_parser::der_parser::ber::BerObject;
use x509_parser::der_parser::parse_ber;
use x509_parser::oid_registry::OID_PKCS1_RSAENCRYPTION;

/// Bits of the RSA keys that rustls uses. Clients refuse smaller ones, too.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The key, ready to sign.
///
/// # Errors
/// What is wrong with it, as the end of a sentence about its file.
pub(super) fn usable(key: &PrivateKeyDer<'_>) -> Result<Arc<dyn SigningKey>, String> {
    any_supported_type(key).map_err(|_| match rsa_bits(key) {
        Some(bits) if !RSA_BITS.contains(&bits) => {
            let (least, most) = (RSA_BITS.start(), RSA_BITS.end());
            format!("holds an RSA key of {bits} bits, but TLS needs {least} to {most}")
        }
        Some(_) => "holds an RSA key that is damaged".to_owned(),
        None => "holds a private key of a kind that TLS clients don't know".to_owned(),
    })
}

/// The length of an RSA key's modulus.
fn rsa_bits(key: &PrivateKeyDer<'_>) -> Option<usize> {
    let bits = |pkcs1: &[u8]| {
        let (_, object) = parse_ber(pkcs1).ok()?;
        let modulus = items(&object)?.get(1)?.as_slice().ok()?;
        let first = modulus.iter().position(|byte| *byte != 0)?;
        Some((modulus.len() - first) * 8 - modulus[first].leading_zeros() as usize)
    };
    match key {
        PrivateKeyDer::Pkcs1(key) => bits(key.secret_pkcs1_der()),
        PrivateKeyDer::Pkcs8(key) => {
            let (_, object) = parse_ber(key.secret_pkcs8_der()).ok()?;
            let parts = items(&object)?;
            let algorithm = items(parts.get(1)?)?.first()?.as_oid().ok()?;
            (*algorithm == OID_PKCS1_RSAENCRYPTION).then(|| bits(parts.get(2)?.as_slice().ok()?))?
        }
        _ => None,
    }
}

/// The items of a sequence.
pub(super) fn items<'a, 'b>(object: &'b BerObject<'a>) -> Option<&'b Vec<BerObject<'a>>> {
    object.as_sequence().ok()
}
