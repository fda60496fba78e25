//! The files that a configuration names: whether they are there, and hold what they should.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

use crate::tls::{self, TlsError};

use super::problem::{Problem, Severity};
use super::reader::why;
use super::yaml::At;

/// Rights of whoever is neither the owner of a file nor of its group.
const OTHERS: u32 = 0o007;

/// A file that the configuration names, and where it does.
pub(super) struct NeededFile {
    pub(super) at: At,
    pub(super) path: String,
    pub(super) file: PathBuf,
    pub(super) holds: Holds,
}

/// What a file is expected to hold.
pub(super) enum Holds {
    /// Something: whoever uses it looks closer.
    Anything,
    /// Tokens. Callgate can start without it.
    Tokens,
    /// Certificates in PEM form.
    Certificates,
    /// The private key, in PEM form, of the certificates in this file.
    KeyOf(PathBuf),
}

/// What is wrong with a file that the configuration at `config` names.
pub(super) fn check(config: &Path, needed: &NeededFile) -> Option<Problem> {
    let found = std::fs::File::open(&needed.file).and_then(|file| file.metadata());
    let (message, severity) = match found {
        Ok(metadata) if metadata.is_dir() => ("is a folder, not a file".to_owned(), Severity::Error),
        Ok(metadata) => match content(needed) {
            Err(message) => (message, Severity::Error),
            Ok(()) if matches!(needed.holds, Holds::KeyOf(_)) && metadata.permissions().mode() & OTHERS != 0 => {
                let message = "holds a private key, and every user of this machine may read or change it (chmod 600)";
                (message.to_owned(), Severity::Warning)
            }
            Ok(()) => return None,
        },
        Err(error) if matches!(needed.holds, Holds::Tokens) && error.kind() == ErrorKind::NotFound => {
            ("does not exist yet, so no token is good (`callgate token create` makes it)".to_owned(), Severity::Warning)
        }
        Err(error) => (why(&error), Severity::Error),
    };
    let message = format!("{} {message}", needed.file.display());
    let (line, column, path) = (needed.at.line, needed.at.column, needed.path.clone());
    Some(Problem { file: config.into(), line, column, path, message, severity })
}

fn content(needed: &NeededFile) -> Result<(), String> {
    match &needed.holds {
        Holds::Anything | Holds::Tokens => Ok(()),
        Holds::Certificates => certificates(&needed.file).map(drop),
        Holds::KeyOf(cert) => {
            let key = tls::private_key(&needed.file).map_err(reason)?;
            // Whatever is wrong with the certificate is told where it is named.
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
    let found = tls::certificates(file).map_err(reason)?;
    for certificate in &found {
        let added = RootCertStore::empty().add(certificate.clone());
        added.map_err(|error| format!("holds a certificate that can't be used: {error}"))?;
    }
    Ok(found)
}

/// What is wrong with a file, without its name.
fn reason(error: TlsError) -> String {
    match error {
        TlsError::Pem { reason, .. } => reason,
        other @ (TlsError::Pair { .. } | TlsError::ServerName(_) | TlsError::Settings(_)) => other.to_string(),
    }
}
