//! The files that a configuration names: whether they exist and hold what they should.

use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Severity;
use crate::accounts::why_unreadable;
use crate::certificates::{self, Finding, Purpose};
use crate::ticket_keys;

/// Mode bits for users that are neither a file's owner nor in its group.
const OTHERS: u32 = 0o007;

/// Bytes of a file that holds a secret. Some files never end.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// What a file is expected to hold.
pub(crate) enum Expected {
    /// Tokens, which are checked elsewhere. Callgate can start without this file.
    Tokens,
    /// Trusted certificates in PEM form.
    Trusted,
    /// A chain of certificates in PEM form, the owner's first, whose private key is in this other file.
    ChainOf(PathBuf, Purpose),
    /// The private key, in PEM form, of the certificates in this other file.
    KeyOf(PathBuf),
    /// Keys of session tickets.
    TicketKeys,
}

impl Expected {
    fn is_secret(&self) -> bool {
        matches!(self, Self::KeyOf(_) | Self::TicketKeys)
    }
}

/// What is wrong with a file that the configuration names.
pub(super) fn check(file: &Path, expected: &Expected, now: SystemTime) -> Vec<(Severity, String)> {
    let error = |message: String| vec![(Severity::Error, message)];
    let metadata = std::fs::File::open(file).and_then(|file| file.metadata());
    let mut found = match metadata {
        Ok(metadata) if metadata.is_dir() => error("is a folder, not a file".to_owned()),
        Ok(metadata) => {
            let mut found = check_content(file, expected, now);
            if found.is_empty() && expected.is_secret() && metadata.permissions().mode() & OTHERS != 0 {
                let what = if matches!(expected, Expected::KeyOf(_)) { "a private key" } else { "keys" };
                let message = format!("holds {what} that every user of this machine may read or change (chmod 600)");
                found.push((Severity::Warning, message));
            }
            found
        }
        Err(problem) if matches!(expected, Expected::Tokens) && problem.kind() == ErrorKind::NotFound => {
            let message = "does not exist yet, so no token is valid (`callgate token create` makes it)";
            vec![(Severity::Warning, message.to_owned())]
        }
        Err(problem) => error(reason(file, &problem)),
    };
    for (_, message) in &mut found {
        *message = format!("{} {message}", file.display());
    }
    found
}

/// Servers' certificates that are for one name: the index of the later file, and what is wrong with it.
pub(super) fn shared_names(files: &[PathBuf]) -> Vec<(usize, String)> {
    let named = |(index, message): (usize, String)| (index, format!("{} {message}", files[index].display()));
    certificates::shared_names(files).into_iter().map(named).collect()
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

fn check_content(file: &Path, expected: &Expected, now: SystemTime) -> Vec<(Severity, String)> {
    let unusable = |message: Option<String>| message.map(|message| (Severity::Error, message)).into_iter().collect();
    match expected {
        Expected::Tokens => Vec::new(),
        Expected::Trusted => unusable(certificates::check_trusted(file)),
        Expected::ChainOf(key, purpose) => {
            let found = certificates::check_chain(file, key, *purpose, now).into_iter();
            let judged = found.map(|finding| match finding {
                Finding::Unusable(message) => (Severity::Error, message),
                Finding::Doubtful(message) => (Severity::Warning, message),
            });
            judged.collect()
        }
        Expected::KeyOf(cert) => unusable(certificates::check_key(file, cert)),
        Expected::TicketKeys => unusable(ticket_keys::read(file).err()),
    }
}
