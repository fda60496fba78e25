//! The token file of the memory store: read at start, read again when it changes, and never half taken over.

mod check;
mod edit;
mod exchange;
mod parse;
#[cfg(test)]
mod tests;
mod text;
mod trail;
mod tree;
mod usage;

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

use super::credential::Credential;
use super::open::{self, OpenCalls};
use super::plans::Plans;
use super::principal::Principal;
use super::record::{Record, StoredHash};
use super::refusal::{Reason, Refusal};
use super::token::TokenHash;
use crate::config::{Config, Problem};

pub use check::check_tokens;
pub use edit::{EditError, TokenFile};

/// How often a running instance looks whether the file has changed.
const POLL: Duration = Duration::from_millis(500);

/// Why a token file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system says no.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// What is in it is wrong: every problem, in the order of the file.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Problem>),
}

/// The records of a token file, in memory.
pub struct FileStore {
    path: PathBuf,
    plans: Plans,
    records: ArcSwap<Records>,
    /// What the file looked like when it was last read, for good or ill.
    seen: Mutex<Option<Stamp>>,
}

#[derive(Default)]
struct Records {
    by_hash: HashMap<TokenHash, Arc<Stored>, foldhash::fast::RandomState>,
    /// Records, each of which has one hash or more.
    count: usize,
    /// The highest version given so far.
    version: u64,
}

struct Stored {
    record: Record,
    /// Whose token it is, or why it is no good; its end is judged at every use.
    principal: Result<Arc<Principal>, Refusal>,
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl FileStore {
    /// Reads the file of `tokens.file`. A file that isn't there counts as empty, with a warning: it may come later.
    ///
    /// # Errors
    /// [`FileError`]
    pub fn open(config: &Config, path: &Path) -> Result<Self, FileError> {
        Self::with_plans(Plans::new(config), path)
    }

    fn with_plans(plans: Plans, path: &Path) -> Result<Self, FileError> {
        let store = Self { path: path.to_owned(), plans, records: ArcSwap::default(), seen: Mutex::new(None) };
        match store.read() {
            Ok(()) => Ok(store),
            Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                tracing::warn!("{} does not exist: no token is known", store.path.display());
                Ok(store)
            }
            Err(error) => Err(error),
        }
    }

    /// How many tokens are in the file, good or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.load().count
    }

    /// Whether no token is in the file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Follows the file for ever. A good new file replaces all records at once; of a bad one each problem is logged, and the old
    /// records stay. Ends open calls whose tokens no longer entitle to them.
    pub async fn watch(self: Arc<Self>, calls: Arc<OpenCalls>) {
        tokio::join!(self.follow(&calls), open::clock(&calls));
    }

    async fn follow(self: &Arc<Self>, calls: &OpenCalls) {
        loop {
            tokio::time::sleep(POLL).await;
            let store = self.clone();
            // Thousands of records take longer to read than a worker may stand still. A panic in there must not end the watch.
            if tokio::task::spawn_blocking(move || store.refresh()).await.is_err() {
                tracing::error!(
                    "{}: reading it failed unexpectedly; the old tokens stay in force",
                    self.path.display()
                );
            }
            // Each time, for a call may begin while the file changes.
            calls.judge_all(SystemTime::now(), |call| self.known(&call.hash));
        }
    }

    /// Whose token has this stored hash by now.
    fn known(&self, hash: &TokenHash) -> Result<Arc<Principal>, Refusal> {
        let records = self.records.load();
        let stored = records.by_hash.get(hash);
        stored.map_or(Err(Refusal::Invalid(Reason::Unknown)), |stored| stored.principal.clone())
    }

    /// Reads the file if it has changed since it was last read.
    pub fn refresh(&self) {
        let stamp = fs::metadata(&self.path).ok().as_ref().map(Stamp::of);
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if stamp == seen {
            return;
        }
        match self.read() {
            Ok(()) => tracing::info!("{}: read again, {} tokens", self.path.display(), self.len()),
            Err(FileError::Io { path, source }) => {
                tracing::error!("{}: {source}; the old tokens stay in force", path.display());
            }
            Err(FileError::Invalid(problems)) => {
                for problem in &problems {
                    tracing::error!("{problem}");
                }
                tracing::error!("{}: not taken over; the old tokens stay in force", self.path.display());
            }
        }
    }

    /// Who presents this credential; whether the token has ended is for the caller to judge.
    pub(super) fn find(&self, credential: &Credential<'_>) -> Result<Arc<Principal>, Refusal> {
        let records = self.records.load();
        let find = |hash: &TokenHash| records.by_hash.get(hash);
        let stored = find(&credential.hash).or_else(|| find(&credential.hash_behind_bar()?));
        stored.map_or(Err(Refusal::Invalid(Reason::Unknown)), |stored| stored.principal.clone())
    }

    fn read(&self) -> Result<(), FileError> {
        let stamp = |path: &Path| fs::metadata(path).ok().as_ref().map(Stamp::of);
        let (text, before) = match load(&self.path) {
            Ok(loaded) => loaded,
            Err(source) => {
                *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = stamp(&self.path);
                return Err(FileError::Io { path: self.path.clone(), source });
            }
        };
        // Remembered whether it is good or not, so that a bad file is complained of once.
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let placed = parse::parse(&self.path, &text, &self.plans).map_err(FileError::Invalid)?;
        let old = self.records.load();
        let new = self.take_over(&old, placed.into_iter().map(|placed| placed.record));
        self.records.store(Arc::new(new));
        Ok(())
    }

    /// Records that did not change keep their version and their principal.
    fn take_over(&self, old: &Records, records: impl Iterator<Item = Record>) -> Records {
        let mut new = Records { version: old.version, ..Records::default() };
        for record in records {
            let unchanged = |stored: &&Arc<Stored>| stored.record == record;
            let mut version = None;
            for hash in &record.hashes {
                let same = old.by_hash.get(&hash.sha256).filter(unchanged).cloned();
                let stored = same.unwrap_or_else(|| {
                    let version = *version.get_or_insert_with(|| {
                        new.version += 1;
                        new.version
                    });
                    Arc::new(Stored { principal: self.principal(&record, hash, version), record: record.clone() })
                });
                new.by_hash.insert(hash.sha256, stored);
            }
            new.count += 1;
        }
        new
    }

    fn principal(&self, record: &Record, hash: &StoredHash, version: u64) -> Result<Arc<Principal>, Refusal> {
        super::authenticator::usable(record)?;
        let plan = self.plans.resolve(record);
        Ok(Arc::new(Principal::new(record, hash, version, plan, SystemTime::now())))
    }
}

/// A file's text and what it looked like, from one handle. A file that is being written while it is read is read again later: its
/// stamp will differ from the one that is returned.
fn load(path: &Path) -> io::Result<(String, Stamp)> {
    let mut file = File::open(path)?;
    let stamp = Stamp::of(&file.metadata()?);
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok((text, stamp))
}
