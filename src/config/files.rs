//! The files that a configuration names: whether they exist and hold what they should.

use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

use super::Severity;
use crate::accounts::why_unreadable;
use crate::tls::{self, TlsError};

/// Mode bits for users that are neither a file's owner nor in its group.
const OTHERS: u32 = 0o007;

/// Bytes of a file that holds a secret. Some files never end.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// What a file is expected to hold.
pub(crate) enum Expected {
    /// Anything: the part of Callgate that uses the file looks closer.
    Anything,
    /// Tokens. Callgate can start without this file.
    Tokens,
    /// Certificates in PEM form.
    Certificates,
    /// The private key, in PEM form, of the certificates in this other file.
    KeyOf(PathBuf),
}

/// What is wrong with a file that the configuration names.
pub(super) fn check(file: &Path, expected: &Expected) -> Option<(Severity, String)> {
    let metadata = std::fs::File::open(file).and_then(|file| file.metadata());
    let (severity, message) = match metadata {
        Ok(metadata) if metadata.is_dir() => (Severity::Error, "is a folder, not a file".to_owned()),
        Ok(metadata) => match check_content(file, expected) {
            Err(message) => (Severity::Error, message),
            Ok(()) if matches!(expected, Expected::KeyOf(_)) && metadata.permissions().mode() & OTHERS != 0 => {
                let message = "holds a private key that every user of this machine may read or change (chmod 600)";
                (Severity::Warning, message.to_owned())
            }
            Ok(()) => return None,
        },
        Err(error) if matches!(expected, Expected::Tokens) && error.kind() == ErrorKind::NotFound => {
            let message = "does not exist yet, so no token is valid (`callgate token create` makes it)";
            (Severity::Warning, message.to_owned())
        }
        Err(error) => (Severity::Error, reason(file, &error)),
    };
    Some((severity, format!("{} {message}", file.display())))
}

/// The trimmed content of a file that holds a secret.
pub(super) fn read_secret(file: &Path) -> Result<String, String> {
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(MAX_SECRET_BYTES).read_to_string(&mut text))
        .map_err(|error| format!("the file {} {}", file.display(), reason(file, &error)))?;
    Ok(text.trim().to_owned())
}

/// Why a file can't be used, without the operating system's numbers.
pub(super) fn reason(file: &Path, error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "does not exist (paths are relative to the configuration's folder)".to_owned(),
        ErrorKind::PermissionDenied => why_unreadable(file),
        ErrorKind::InvalidData => "is not UTF-8 text".to_owned(),
        _ => format!("can't be read: {error}"),
    }
}

fn check_content(file: &Path, expected: &Expected) -> Result<(), String> {
    match expected {
        Expected::Anything | Expected::Tokens => Ok(()),
        Expected::Certificates => certificates(file).map(drop),
        Expected::KeyOf(cert) => {
            let key = tls::private_key(file).map_err(tls_reason)?;
            // What is wrong with the certificate is reported where the certificate is named.
            let Ok(chain) = certificates(cert) else { return Ok(()) };
            match CertifiedKey::from_der(chain, key, &tls::provider()) {
                Ok(_) => Ok(()),
                Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                    Err(format!("is not the key of the first certificate in {}", cert.display()))
                }
                Err(error) => Err(format!("holds a private key that can't be used: {error}")),
            }
        }
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = tls::certificates(file).map_err(tls_reason)?;
    for certificate in &found {
        let added = RootCertStore::empty().add(certificate.clone());
        added.map_err(|error| format!("holds a certificate that can't be used: {error}"))?;
    }
    Ok(found)
}

/// What is wrong with a PEM file, without its name.
fn tls_reason(error: TlsError) -> String {
    match error {
        TlsError::Pem { reason, .. } => reason,
        other @ (TlsError::Pair { .. } | TlsError::ServerName(_) | TlsError::Settings(_)) => other.to_string(),
    }
}
