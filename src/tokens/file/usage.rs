//! The use of the tokens of a file, in another file beside it: what changes each minute is not for a file that people edit.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::atomic_replace::{LockedFile, beside};
use super::token_file::TokenFile;
use crate::tokens::error::EditError;
use crate::tokens::record::Usage;
use crate::tokens::stored::NewUsage;

/// What the file is called, behind the token file's name.
const ENDING: &str = ".usage";

pub(super) type Usages = BTreeMap<String, Usage>;

/// The use of all tokens of the token file at `path`. A file that can't be read tells of none: it is no reason to show no tokens.
pub(super) fn read(path: &Path) -> Usages {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    load(&beside(&path, ENDING)).unwrap_or_default()
}

fn load(path: &Path) -> io::Result<Usages> {
    let text = std::fs::read_to_string(path)?;
    Ok(serde_json::from_str(&text)?)
}

impl TokenFile {
    /// Adds to the use of tokens, and forgets that of tokens that are in the file no more.
    ///
    /// # Errors
    /// [`EditError`]; then nothing was added.
    pub(in crate::tokens) fn add_usage(&self, uses: &[(Arc<str>, NewUsage)]) -> Result<(), EditError> {
        let locked = LockedFile::wait_for(&self.path)?;
        let path = locked.beside(ENDING);
        let mut usages = match load(&path) {
            Ok(usages) => usages,
            // One that is damaged is begun anew; one that may not be read may not be replaced.
            Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::InvalidData].contains(&error.kind()) => {
                Usages::new()
            }
            Err(error) if error.get_ref().is_some_and(|cause| cause.is::<serde_json::Error>()) => Usages::new(),
            Err(source) => return Err(EditError::Write { path, source }),
        };
        for (id, new) in uses {
            let usage = usages.entry(id.to_string()).or_default();
            usage.requests = usage.requests.saturating_add(new.requests);
            usage.last_used = usage.last_used.max(Some(new.last));
        }
        // A file that is being mended forgets nobody.
        if let Ok(records) = self.list() {
            let ids: std::collections::HashSet<&str> = records.iter().map(|record| &*record.id).collect();
            usages.retain(|id, _| ids.contains(id.as_str()));
        }
        let mut text = serde_json::to_string(&usages).expect("usages have only text keys");
        text.push('\n');
        locked.replace(&path, &text)
    }
}
