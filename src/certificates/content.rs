//! What is in a file that should hold certificates or a private key in PEM form.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::der_parser::ber::{BerObject, BerObjectContent};
use x509_parser::der_parser::parse_ber;

use super::key::items;
use super::remedy::{convert, openssl};

/// Bytes of a file. The authorities of a system take some 250 KB, and some files never end.
const MAX_BYTES: u64 = 8 << 20;

/// Identifiers of objects, as they are encoded.
const PKCS7_SIGNED: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
const PKCS12_VERSION: u32 = 3;

/// The certificates of a file, at least one.
///
/// # Errors
/// What is wrong with the file, as the end of a sentence about it.
pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(no_certificate(file, &bytes)),
        Err(error) => Err(damaged(&error)),
    }
}

/// The first private key of a file.
///
/// # Errors
/// What is wrong with the file, as the end of a sentence about it.
pub(crate) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = read(file)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => no_key(file, &bytes),
        _ if is_encrypted(&bytes) => encrypted(file),
        other => damaged(&other),
    })
}

/// Whether a file holds a private key and no certificate.
pub(super) fn holds_only_a_key(file: &Path) -> bool {
    read(file).is_ok_and(|bytes| {
        let mut labels = labels(&bytes);
        labels.clone().any(|label| label.ends_with(b"PRIVATE KEY")) && !labels.any(|label| label == b"CERTIFICATE")
    })
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes))
        .map_err(|error| format!("can't be read: {error}"))?;
    Ok(bytes)
}

/// What a file holds that has no section of the wanted kind.
enum Format {
    Empty,
    /// A text with a byte order mark, as Windows writes it: of UTF-8, or of UTF-16.
    MarkedUtf8,
    Utf16,
    Pem,
    CertificateDer,
    KeyDer,
    EncryptedKeyDer,
    Pkcs7Der,
    Pkcs12,
    Unknown,
}

fn format(bytes: &[u8]) -> Format {
    if bytes.trim_ascii().is_empty() {
        Format::Empty
    } else if bytes.starts_with(b"\xef\xbb\xbf") {
        Format::MarkedUtf8
    } else if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        Format::Utf16
    } else if labels(bytes).next().is_some() {
        Format::Pem
    } else if x509_parser::parse_x509_certificate(bytes).is_ok() {
        Format::CertificateDer
    } else {
        let container = parse_ber(bytes).ok().and_then(|(_, object)| container(&object));
        // This looks at a file's first bytes only, so it comes last.
        let is_key = || PrivateKeyDer::try_from(bytes).is_ok();
        container.unwrap_or_else(|| if is_key() { Format::KeyDer } else { Format::Unknown })
    }
}

/// The formats around keys and certificates, known by how they begin (RFC 7292 §4, RFC 5958 §3, RFC 2315 §7).
fn container(object: &BerObject<'_>) -> Option<Format> {
    let [first, second, ..] = items(object)?.as_slice() else { return None };
    if first.as_oid().is_ok_and(|oid| oid.as_bytes() == PKCS7_SIGNED) {
        Some(Format::Pkcs7Der)
    } else if first.as_u32().is_ok_and(|version| version == PKCS12_VERSION) && items(second).is_some() {
        Some(Format::Pkcs12)
    } else if items(first).is_some() && matches!(second.content, BerObjectContent::OctetString(_)) {
        Some(Format::EncryptedKeyDer)
    } else {
        None
    }
}

fn no_certificate(file: &Path, bytes: &[u8]) -> String {
    const OWNER: &str = "is this the file of `key`?";
    let has = |label: &[u8]| labels(bytes).any(|found| found == label);
    match format(bytes) {
        Format::Empty => "is empty (it must hold the certificates in PEM form, the server's own first)".to_owned(),
        Format::MarkedUtf8 => marked(file),
        Format::Utf16 => utf16(file),
        Format::Pem if labels(bytes).any(|label| label.ends_with(b"PRIVATE KEY")) => {
            format!("holds a private key, not a certificate ({OWNER})")
        }
        Format::Pem if has(b"PKCS7") => {
            format!("is PKCS#7 (take the certificates out: {})", openssl("pkcs7 -print_certs", file))
        }
        Format::Pem if has(b"TRUSTED CERTIFICATE") || has(b"X509 CERTIFICATE") => {
            format!("holds a certificate in a form of openssl's own (convert it: {})", openssl("x509", file))
        }
        Format::Pem if has(b"CERTIFICATE REQUEST") || has(b"NEW CERTIFICATE REQUEST") => {
            "holds a request for a certificate, not a certificate (send it to your authority, which answers with one)"
                .to_owned()
        }
        Format::CertificateDer => {
            format!("is DER, not PEM (convert it: {})", openssl("x509 -inform DER", file))
        }
        Format::KeyDer | Format::EncryptedKeyDer => format!("holds a private key in DER, not a certificate ({OWNER})"),
        Format::Pkcs7Der => {
            let command = openssl("pkcs7 -inform DER -print_certs", file);
            format!("is PKCS#7 in DER, not PEM (take the certificates out: {command})")
        }
        Format::Pkcs12 => pkcs12(file),
        Format::Pem | Format::Unknown => {
            "holds no certificate in PEM form (it must have a line -----BEGIN CERTIFICATE-----)".to_owned()
        }
    }
}

fn no_key(file: &Path, bytes: &[u8]) -> String {
    const OWNER: &str = "is this the file of `cert`?";
    let has = |label: &[u8]| labels(bytes).any(|found| found == label);
    match format(bytes) {
        Format::Empty => "is empty (it must hold the private key in PEM form)".to_owned(),
        Format::MarkedUtf8 => marked(file),
        Format::Utf16 => utf16(file),
        Format::Pem if is_encrypted(bytes) => encrypted(file),
        Format::Pem if has(b"CERTIFICATE") => format!("holds a certificate, not a private key ({OWNER})"),
        Format::Pem if has(b"PUBLIC KEY") => {
            "holds a public key, not the private one (the private one was made before it: name that file)".to_owned()
        }
        Format::Pem if labels(bytes).any(|label| label.ends_with(b" PRIVATE KEY")) => {
            format!("holds a private key in a form of its own (convert it: {})", openssl("pkey", file))
        }
        Format::KeyDer => format!("is DER, not PEM (convert it: {})", openssl("pkey -inform DER", file)),
        Format::EncryptedKeyDer => {
            format!("is DER, not PEM, and encrypted (convert it: {})", openssl("pkey -inform DER", file))
        }
        Format::Pkcs12 => pkcs12(file),
        Format::CertificateDer | Format::Pkcs7Der => {
            format!("holds certificates in DER, not a private key ({OWNER})")
        }
        Format::Pem | Format::Unknown => {
            "holds no private key in PEM form (it must have a line -----BEGIN PRIVATE KEY-----)".to_owned()
        }
    }
}

fn encrypted(file: &Path) -> String {
    let command = openssl("pkey", file);
    format!("is encrypted, but Callgate can't ask for its password (decrypt it: {command})")
}

/// The command writes the key and the certificates into one file, which both `cert` and `key` may name.
fn pkcs12(file: &Path) -> String {
    format!("is PKCS#12, not PEM (convert it: {})", openssl("pkcs12 -nodes", file))
}

fn marked(file: &Path) -> String {
    format!("begins with a byte order mark (remove it: {})", convert("tail -c +4", file))
}

fn utf16(file: &Path) -> String {
    format!("is UTF-16 text (convert it: {})", convert("iconv -f UTF-16 -t ASCII", file))
}

/// Whether a private key is encrypted: PKCS#8 (RFC 5958 §3), or openssl's older form (RFC 1421 §4.6.1.1).
fn is_encrypted(bytes: &[u8]) -> bool {
    labels(bytes).any(|label| label == b"ENCRYPTED PRIVATE KEY")
        || lines(bytes).any(|line| line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED"))
}

fn damaged(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            "is cut off: its last -----BEGIN has no -----END (copy it once more)".to_owned()
        }
        other => format!("is damaged: {other} (copy it once more)"),
    }
}

/// What the sections of a PEM file say that they are.
fn labels(bytes: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    lines(bytes).filter_map(|line| line.strip_prefix(b"-----BEGIN ")?.strip_suffix(b"-----"))
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    bytes.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii_end)
}
