//! The use of the tokens of a file, in another file beside it: what changes each minute is not for a file that people edit.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::atomic_replace::{LockedFile, beside, target};
use super::token_file::TokenFile;
use crate::accounts::read_error;
use crate::tokens::error::{FileError, Result};
use crate::tokens::record::Usage;
use crate::tokens::usage_counts::NewUsage;

/// What the file is called, behind the token file's name.
const ENDING: &str = ".usage";

pub(super) type Usages = BTreeMap<String, Usage>;

/// The use of all tokens of the token file at `path`. A file that can't be read tells of none: it is no reason to show no tokens.
pub(super) fn read(path: &Path) -> Usages {
    load(&beside(&target(path), ENDING)).unwrap_or_default()
}

/// A file that is damaged or not there tells of none. One that may not be read is an error, so that it is not replaced.
fn load(path: &Path) -> io::Result<Usages> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(serde_json::from_str(&text).unwrap_or_default()),
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::InvalidData].contains(&error.kind()) => {
            Ok(Usages::new())
        }
        Err(error) => Err(error),
    }
}

impl TokenFile {
    /// Adds to the use of tokens, and forgets that of tokens that are in the file no more.
    /// After an error nothing was added.
    pub(in crate::tokens) fn add_usage(&self, uses: &[(Arc<str>, NewUsage)]) -> Result<()> {
        let locked = LockedFile::wait_for(&self.path)?;
        let path = beside(&locked.path, ENDING);
        let mut usages =
            load(&path).map_err(|error| FileError::Io { path: path.clone(), error: read_error(&path, error) })?;
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
        Ok(locked.replace(&path, &text)?)
    }
}
