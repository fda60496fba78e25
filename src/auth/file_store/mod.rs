//! Principals by the token file of the memory store: read at start, read again when it changes, and never half taken over.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use prometheus::IntGauge;

use super::credential::Credential;
use super::open_calls::OpenCalls;
use super::principal::{Principal, principal_of};
use super::refusal::Refused;
use crate::tokens::{FileError, Plans, Record, Stamp, TokenHash, load, read_served_records};

/// How often a running instance looks whether the file has changed.
const POLL: Duration = Duration::from_millis(500);

/// The records of a token file, in memory.
pub struct FileStore {
    path: PathBuf,
    plans: ArcSwap<Plans>,
    /// Held while the records are exchanged.
    exchange: Mutex<()>,
    records: ArcSwap<Records>,
    /// What the file looked like when it was last read, for good or ill.
    seen: Mutex<Option<Stamp>>,
    /// Whether the file was refused when it was last read.
    is_refused: AtomicBool,
    /// It is to be read again although it has not changed.
    must_read: AtomicBool,
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
    record: Arc<Record>,
    /// The token's principal, or why the token is refused. Expiry is checked at every use.
    principal: Result<Arc<Principal>, Refused>,
}

impl FileStore {
    /// Reads the file of `tokens.file`. A file that isn't there counts as empty, with a warning: it may come later.
    ///
    /// # Errors
    /// [`FileError`]
    pub fn open(path: &Path, plans: Arc<Plans>) -> Result<Self, FileError> {
        let store = Self {
            path: path.to_owned(),
            plans: ArcSwap::new(plans),
            exchange: Mutex::default(),
            records: ArcSwap::default(),
            seen: Mutex::new(None),
            is_refused: AtomicBool::new(false),
            must_read: AtomicBool::new(false),
        };
        match store.read() {
            Ok(()) => Ok(store),
            Err(FileError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                tracing::warn!("{} does not exist: no token is known", store.path.display());
                Ok(store)
            }
            Err(error @ FileError::Empty(_)) => {
                tracing::warn!("{error}: no token is known");
                Ok(store)
            }
            Err(error) => Err(error),
        }
    }

    /// How many tokens are in the file, good or not.
    pub fn count(&self) -> usize {
        self.records.load().count
    }

    /// Follows the file for ever. A good new file replaces all records at once; of a bad one each problem is logged, and the old
    /// records stay. Ends open calls whose tokens no longer entitle to them.
    /// `is_good`: 1 while the records are those of the file as it is.
    pub async fn watch(self: Arc<Self>, calls: Arc<OpenCalls>, is_good: IntGauge) {
        tokio::join!(self.follow(&calls, is_good), calls.expire_on_time());
    }

    async fn follow(self: &Arc<Self>, calls: &OpenCalls, is_good: IntGauge) {
        loop {
            is_good.set((!self.is_refused.load(Ordering::Relaxed)).into());
            tokio::time::sleep(POLL).await;
            let store = self.clone();
            // Thousands of records take longer to read than a worker may stand still. A panic in there must not end the watch.
            if tokio::task::spawn_blocking(move || store.refresh()).await.is_err() {
                tracing::error!(
                    "{}: reading it failed unexpectedly; the previous tokens stay active",
                    self.path.display()
                );
            }
            // Each time, for a call may begin while the file changes.
            calls.judge_all(SystemTime::now(), |call| self.known(&call.hash));
        }
    }

    /// The principal of this stored hash, by the records of now.
    fn known(&self, hash: &TokenHash) -> Result<Arc<Principal>, Refused> {
        let records = self.records.load();
        records.by_hash.get(hash).map_or(Err(Refused::UNKNOWN), |stored| stored.principal.clone())
    }

    /// Reads the file if it has changed since it was last read.
    pub fn refresh(&self) {
        let must_read = self.must_read.swap(false, Ordering::Relaxed);
        if !must_read && Stamp::read(&self.path) == *self.seen.lock().unwrap_or_else(PoisonError::into_inner) {
            return;
        }
        let read = self.read();
        self.is_refused.store(read.is_err(), Ordering::Relaxed);
        match read {
            Ok(()) => tracing::info!("{}: read again, {} tokens", self.path.display(), self.count()),
            Err(error @ (FileError::Io { .. } | FileError::Empty(_))) => {
                tracing::error!("{error}; the previous tokens stay active");
            }
            Err(FileError::Invalid(problems)) => {
                for problem in &problems {
                    tracing::error!("{problem}");
                }
                tracing::error!("{}: rejected; the previous tokens stay active", self.path.display());
            }
        }
    }

    /// The principal of this credential. The caller checks whether the token has expired.
    pub(super) fn find(&self, credential: &Credential<'_>) -> Result<Arc<Principal>, Refused> {
        let records = self.records.load();
        let find = |hash: &TokenHash| records.by_hash.get(hash);
        let stored = find(&credential.hash).or_else(|| find(&credential.hash_behind_bar()?));
        stored.map_or(Err(Refused::UNKNOWN), |stored| stored.principal.clone())
    }

    fn read(&self) -> Result<(), FileError> {
        let loaded = load(&self.path);
        let stamp = loaded.as_ref().map_or_else(|_| Stamp::read(&self.path), |(_, stamp)| Some(*stamp));
        // Remembered whether the file is good or not, so that a bad one is complained of once.
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = stamp;
        let (text, _) = loaded.map_err(|error| FileError::Io { path: self.path.clone(), error })?;
        let records = read_served_records(&self.path, &text, &self.plans.load())?;
        let _exchange = self.exchange.lock().unwrap_or_else(PoisonError::into_inner);
        let new = self.take_over(&self.records.load(), records);
        self.records.store(Arc::new(new));
        Ok(())
    }

    /// Finds the plans of all tokens anew, by another configuration. Takes a while if there are many.
    pub(crate) fn follow_plans(&self, plans: Arc<Plans>) {
        let _exchange = self.exchange.lock().unwrap_or_else(PoisonError::into_inner);
        self.plans.store(plans.clone());
        // A file that names unknown plans was refused, and they may be known now.
        self.must_read.store(self.is_refused.load(Ordering::Relaxed), Ordering::Relaxed);
        let old = self.records.load();
        let under = |stored: &Stored| match &stored.principal {
            Ok(principal) => Ok(Arc::new(principal.under(&plans))),
            Err(refused) => Err(refused.clone()),
        };
        let by_hash = old.by_hash.iter().map(|(hash, stored)| {
            (*hash, Arc::new(Stored { record: stored.record.clone(), principal: under(stored) }))
        });
        let new = Records { by_hash: by_hash.collect(), count: old.count, version: old.version };
        self.records.store(Arc::new(new));
    }

    /// Records that did not change keep their version and their principal.
    fn take_over(&self, old: &Records, records: Vec<Record>) -> Records {
        let mut new = Records { version: old.version, ..Records::default() };
        for record in records {
            let record = Arc::new(record);
            let unchanged = |stored: &&Arc<Stored>| stored.record == record;
            let mut version = None;
            for hash in &record.hashes {
                let same = old.by_hash.get(&hash.sha256).filter(unchanged).cloned();
                let stored = same.unwrap_or_else(|| {
                    let version = *version.get_or_insert_with(|| {
                        new.version += 1;
                        new.version
                    });
                    let now = SystemTime::now();
                    let principal = principal_of(&record, version, hash.sha256, &self.plans.load(), now);
                    Arc::new(Stored { principal, record: record.clone() })
                });
                new.by_hash.insert(hash.sha256, stored);
            }
            new.count += 1;
        }
        new
    }
}
