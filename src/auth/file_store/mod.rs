//! Principals by the token file of the memory store: read at start, read again when it changes, and never half taken over.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use prometheus::IntGauge;

use super::credential::Credential;
use super::open_calls::OpenCalls;
use super::principal::Principal;
use super::refusal::Refused;
use super::served_token::{CommonValues, ServedToken};
use crate::tokens::{FileError, Plans, Record, ServedFile, Stamp, TokenHash};

/// How often a running instance looks whether the file has changed.
const POLL: Duration = Duration::from_millis(500);

/// The records of a token file, in memory.
pub struct FileStore {
    path: PathBuf,
    plans: ArcSwap<Plans>,
    /// Held while other records are made and exchanged for these.
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
    token: ServedToken,
    version: u64,
    /// Made for the token's first request: most tokens of a large file are not in use, and it takes more memory than they do.
    principal: OnceLock<Arc<Principal>>,
}

impl Stored {
    /// The token's principal, or why the token is refused. The caller checks whether it has expired.
    fn principal(&self, hash: &TokenHash, plans: &ArcSwap<Plans>) -> Result<Arc<Principal>, Refused> {
        if let Some(principal) = self.principal.get() {
            return Ok(principal.clone());
        }
        self.token.usable()?;
        let new = || Principal::new(&self.token, *hash, self.version, &plans.load(), SystemTime::now());
        Ok(self.principal.get_or_init(|| Arc::new(new())).clone())
    }
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
        records.by_hash.get(hash).map_or(Err(Refused::UNKNOWN), |stored| stored.principal(hash, &self.plans))
    }

    /// Reads the file if it has changed since it was last read.
    pub fn refresh(&self) {
        // Whoever comes second waits for the first, and finds what the file says by then.
        let _exchange = self.exchange.lock().unwrap_or_else(PoisonError::into_inner);
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
        let find = |hash: &TokenHash| records.by_hash.get_key_value(hash);
        let found = find(&credential.hash).or_else(|| find(&credential.hash_behind_bar()?));
        found.map_or(Err(Refused::UNKNOWN), |(hash, stored)| stored.principal(hash, &self.plans))
    }

    /// Nobody else may exchange the records meanwhile.
    fn read(&self) -> Result<(), FileError> {
        let opened = ServedFile::open(&self.path);
        let stamp = opened.as_ref().map_or_else(|_| Stamp::read(&self.path), |file| Some(file.stamp));
        // Remembered whether the file is good or not, so that a bad one is complained of once.
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = stamp;
        let file = opened?;
        let old = self.records.load_full();
        let new = || NewRecords::after(&old);
        let NewRecords { records, .. } = file.fold(&self.plans.load(), new, |new, record| new.add(&record, &old))?;
        self.records.store(Arc::new(records));
        Ok(())
    }

    /// Finds the plans of all tokens anew, by another configuration. Takes a while if there are many.
    pub(crate) fn follow_plans(&self, plans: Arc<Plans>) {
        let _exchange = self.exchange.lock().unwrap_or_else(PoisonError::into_inner);
        self.plans.store(plans.clone());
        // A file that names unknown plans was refused, and they may be known now.
        self.must_read.store(self.is_refused.load(Ordering::Relaxed), Ordering::Relaxed);
        let old = self.records.load();
        let under = |stored: &Stored| {
            let ServedToken { id, choice, .. } = &stored.token;
            if let Some(choice) = choice {
                plans.named(id, choice);
            }
            let principal = stored.principal.get().map(|principal| Arc::new(principal.under(&plans)));
            let principal = principal.map_or_else(OnceLock::new, OnceLock::from);
            Arc::new(Stored { token: stored.token.clone(), version: stored.version, principal })
        };
        let by_hash = old.by_hash.iter().map(|(hash, stored)| (*hash, under(stored)));
        let new = Records { by_hash: by_hash.collect(), count: old.count, version: old.version };
        self.records.store(Arc::new(new));
    }
}

/// Records that are being read.
struct NewRecords {
    records: Records,
    common: CommonValues,
}

impl NewRecords {
    fn after(old: &Records) -> Self {
        Self { records: Records { version: old.version, ..Records::default() }, common: CommonValues::default() }
    }

    /// Adds a record. One that did not change keeps its version and its principal.
    fn add(&mut self, record: &Record, old: &Records) {
        let mut version = None;
        for hash in &record.hashes {
            let mut token = ServedToken::of(record, hash);
            let same = old.by_hash.get(&hash.sha256).filter(|stored| stored.token == token).cloned();
            let stored = same.unwrap_or_else(|| {
                self.common.share(&mut token);
                let version = *version.get_or_insert_with(|| {
                    self.records.version += 1;
                    self.records.version
                });
                Arc::new(Stored { token, version, principal: OnceLock::new() })
            });
            self.records.by_hash.insert(hash.sha256, stored);
        }
        self.records.count += 1;
    }
}
