//! The records as those see them who issue tokens, in whichever store is configured: the same actions, rules and errors in both.
//!
//! Whatever changes a record goes through [`TokenFile`] or through the one writing function of [`RedisTokens`], and leaves an entry in the
//! audit trail.

mod import;
mod listing;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::audit::{Action, ActionContext, Entry, TrailFilter, TrailPage};
use super::cursor::Cursor;
use super::draft::{Change, Draft};
use super::error::{Fault, RegistryError, Result};
use super::file::TokenFile;
use super::hour::HourUsage;
use super::operation::{MAX_GRACE, Operation};
use super::outcome::{Edited, Found, Issued, Origin, RevokedAccount, Rotated};
use super::plans::Plans;
use super::record::{Record, StoredRecord};
use super::redis::RedisTokens;
use super::token::{self, NewToken, TokenHash};
use super::usage_counts::UsageCounts;
use crate::config::Config;
use crate::store::Redis;

pub use import::{Imported, Refused};
pub use listing::{Filter, Listing};

/// Records in Redis that one call for a page looks through, however few of them fit.
const MAX_SCANNED: usize = 10_000;
/// Bytes of a key that tells a repeated request.
const MAX_KEY_BYTES: usize = 255;

/// Ids that are compared with one that is unknown.
const MAX_HINTS: usize = 10_000;

/// Manages the records of one store by the rules of one configuration.
pub struct Registry {
    pub(super) store: TokenStore,
    plans: Arc<Plans>,
    prefix: Arc<str>,
}

pub(super) enum TokenStore {
    /// The token file of the memory store.
    File(Arc<TokenFile>),
    Redis(RedisTokens),
}

impl Registry {
    /// Manages the records of a token file.
    pub fn with_file(config: &Config, path: &Path) -> Self {
        let plans = Arc::new(Plans::new(config));
        let file = TokenFile::new(path, plans.clone());
        Self { store: TokenStore::File(Arc::new(file)), plans, prefix: config.tokens.prefix.clone() }
    }

    /// Manages the records in Redis. The connection's deadline is best a long one: a person waits, not a request.
    pub fn with_redis(config: &Config, redis: Redis) -> Self {
        let store = TokenStore::Redis(RedisTokens::new(redis));
        Self { store, plans: Arc::new(Plans::new(config)), prefix: config.tokens.prefix.clone() }
    }

    /// The same, that calls `changed` with the id of each token whose record in Redis it has changed, or may have.
    #[must_use]
    pub fn on_change(mut self, changed: impl Fn(&str) + Send + Sync + 'static) -> Self {
        if let TokenStore::Redis(tokens) = &mut self.store {
            tokens.on_change = Some(Arc::new(changed));
        }
        self
    }

    /// Checks what is asked for and makes the token. A request with a `key` (1 to 255 bytes) may be repeated with the same
    /// content: it makes one token, and only the first answer has its secret.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn issue(&self, draft: Draft, origin: Origin, key: Option<&str>, by: &ActionContext) -> Result<Issued> {
        if key.is_some_and(|key| !(1..=MAX_KEY_BYTES).contains(&key.len())) {
            return Err(Fault::invalid("key", format!("the key must be 1 to {MAX_KEY_BYTES} bytes long")));
        }
        // All that is asked for, and the key: its hash tells a repetition from something else under the same key.
        let request = key.map(|key| {
            let content = serde_json::to_string(&draft).expect("drafts have only text keys");
            TokenHash::of(&format!("{key}\n{content}")).to_hex()
        });
        let (id, hash, secret) = match origin {
            Origin::Registered { id, hash } => (id.unwrap_or_else(|| hash.derived_id()), hash, None),
            Origin::New => {
                let token = match key {
                    // The key leads to the id, so that of two requests at one time only one makes a token.
                    Some(key) => NewToken::with_id(&self.prefix, TokenHash::of(key).derived_id())?,
                    None => NewToken::generate(&self.prefix)?,
                };
                (token.id, token.hash, Some(token.secret))
            }
        };
        let mut record = draft.into_record(&self.plans, id, hash, by.now).map_err(RegistryError::Invalid)?;
        record.request.clone_from(&request);
        match (self.create(record, by).await, request) {
            (Err(RegistryError::Exists(id)), Some(request)) => {
                let found = self.find(&id).await?;
                if found.record.request.as_ref() != Some(&request) {
                    return Err(RegistryError::KeyUsed(id));
                }
                let (record, version) = (found.record, found.version);
                Ok(Issued { edited: Edited { record, version, changed: false, rewritten: false }, secret: None })
            }
            (created, _) => created.map(|edited| Issued { edited, secret }),
        }
    }

    /// Stores a new record.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn create(&self, record: Record, by: &ActionContext) -> Result<Edited> {
        match &self.store {
            TokenStore::File(file) => {
                let by = by.clone();
                blocking(file, move |file| file.create(record, &by)).await
            }
            TokenStore::Redis(tokens) => tokens.create(record, by).await,
        }
    }

    /// Up to `count` tokens (at least 1) that fit, in the order of their creation or of the file; `after` is what the page before said
    /// is next. Tokens that are there throughout are on exactly one page.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn list(&self, filter: &Filter, after: Option<&str>, count: usize, now: SystemTime) -> Result<Listing> {
        let mut after = after.map(Cursor::parse).transpose()?.unwrap_or_default();
        let (count, default_plan) = (count.max(1), self.plans.default.name.clone());
        let tokens = match &self.store {
            TokenStore::File(file) => {
                let filter = filter.clone();
                let is_wanted = move |record: &Record| filter.matches(record, &default_plan, now);
                // All at once: to read a part of a file, all of it must be read.
                let (tokens, last) = blocking(file, move |file| file.page(&after, count, is_wanted)).await?;
                return Ok(Listing { tokens, next: last.map(|last| last.text()) });
            }
            TokenStore::Redis(tokens) => tokens,
        };
        let step = if *filter == Filter::default() { count.min(256) } else { 256 };
        let mut listing = Listing::default();
        let mut scanned = 0;
        loop {
            let (page, last) = tokens.page(&after, step, now).await?;
            scanned += page.len();
            for (cursor, stored) in page {
                if !filter.matches(&stored.record, &default_plan, now) {
                    continue;
                }
                listing.tokens.push(stored);
                if listing.tokens.len() == count {
                    listing.next = Some(cursor.text());
                    return Ok(listing);
                }
            }
            let Some(last) = last else { return Ok(listing) };
            if scanned >= MAX_SCANNED {
                listing.next = Some(last.text());
                return Ok(listing);
            }
            after = last;
        }
    }

    /// One token: its record, the version of that, its use, and the limits that hold for it by this configuration.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn find(&self, id: &str) -> Result<Found> {
        let stored = match &self.store {
            TokenStore::File(file) => {
                let id = id.to_owned();
                blocking(file, move |file| file.read(&id)).await?
            }
            TokenStore::Redis(tokens) if token::is_id(id) => tokens.read_whole(id).await?,
            TokenStore::Redis(_) => None,
        };
        let Some(StoredRecord { version, record, usage }) = stored else { return Err(self.unknown(id).await) };
        Ok(Found { version, plan: self.plans.resolve(&record), record, usage })
    }

    /// Changes what a token is called or may do; with `expected`, only while its record has that version.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn update(&self, id: &str, change: Change, expected: Option<u64>, by: &ActionContext) -> Result<Edited> {
        self.operate(id, Operation::Update(change, self.plans.clone()), expected, by).await
    }

    /// Gives a token a new secret; its id and its log stay. The present secret works for `grace` (up to [`MAX_GRACE`]) more, older ones
    /// until their own ends; with a grace of zero all end at once. A token that was imported gets a secret of Callgate's.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn rotate(
        &self,
        id: &str,
        grace: Duration,
        expected: Option<u64>,
        by: &ActionContext,
    ) -> Result<Rotated> {
        if grace > MAX_GRACE {
            let message = format!("the grace period may be at most {}", humantime::format_duration(MAX_GRACE));
            return Err(Fault::invalid("grace", message));
        }
        if !token::can_be_own(id) {
            // Whether there is such a token at all is the better answer.
            self.find(id).await?;
            return Err(RegistryError::NoSecret(id.to_owned()));
        }
        let token = NewToken::with_id(&self.prefix, id.to_owned())?;
        let edited = self.operate(id, Operation::Rotate(token.hash, grace), expected, by).await?;
        let old_until = edited.record.hashes.get(1).and_then(|old| old.expires_at);
        Ok(Rotated { edited, secret: token.secret, old_until })
    }

    /// Changes an existing token; with `expected`, only while its record has that version. A token that is revoked already stays as
    /// it is when it is revoked again.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn operate(
        &self,
        id: &str,
        operation: Operation,
        expected: Option<u64>,
        by: &ActionContext,
    ) -> Result<Edited> {
        match &self.store {
            TokenStore::File(file) => {
                let (id, by) = (id.to_owned(), by.clone());
                blocking(file, move |file| file.operate(&id, &operation, expected, &by)).await
            }
            TokenStore::Redis(tokens) => match tokens.operate(id, &operation, expected, by).await? {
                Some(edited) => Ok(edited),
                None => Err(self.unknown(id).await),
            },
        }
    }

    /// Revokes all tokens of an account; returns those that were not revoked before.
    ///
    /// # Errors
    /// [`RegistryError::Partly`] if some are revoked and then something goes wrong; [`RegistryError`]
    pub async fn revoke_account(&self, account: &str, by: &ActionContext) -> Result<RevokedAccount> {
        match &self.store {
            TokenStore::File(file) => {
                let (account, by) = (account.to_owned(), by.clone());
                let tokens = blocking(file, move |file| file.revoke_account(&account, &by)).await?;
                Ok(RevokedAccount { tokens, lost: 0 })
            }
            TokenStore::Redis(tokens) => tokens.revoke_account(account, by).await,
        }
    }

    /// Whether replicas have what was written last of these tokens, so that no failover loses it; `None`: there is no replica.
    pub async fn have_replicated(&self, ids: impl IntoIterator<Item = &str>) -> Option<bool> {
        let TokenStore::Redis(tokens) = &self.store else { return None };
        let mut all = None;
        for id in ids {
            match tokens.has_replicated(id).await {
                Some(false) => return Some(false),
                one => all = all.or(one),
            }
        }
        all
    }

    /// The use of a token in each of the last hours, the oldest first; about a minute late.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub(crate) async fn usage_by_hour(&self, id: &str, now: SystemTime) -> Result<Vec<HourUsage>> {
        self.find(id).await?;
        match &self.store {
            TokenStore::File(file) => {
                let id = id.to_owned();
                blocking(file, move |file| Ok(file.usage_by_hour(&id, now))).await
            }
            TokenStore::Redis(tokens) => Ok(tokens.usage(id, now).await?),
        }
    }

    /// The tokens with the most refused requests of the last hour: with Redis over all instances, else by the counts of this process.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub(crate) async fn most_refused(
        &self,
        counts: &UsageCounts,
        limit: usize,
        now: SystemTime,
    ) -> Result<Vec<(Arc<str>, u64)>> {
        match &self.store {
            TokenStore::File(_) => Ok(counts.most_refused(limit, now)),
            TokenStore::Redis(tokens) => Ok(tokens.most_refused(limit, now).await?),
        }
    }

    /// Enters into the audit trail that the log of a token's limits was cleared.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn note_reset(&self, record: &Record, by: &ActionContext) -> Result<()> {
        self.note(Entry::of(Action::Reset, by, None, record), by).await
    }

    /// Enters into the audit trail that an open call of a token was closed.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub(crate) async fn note_call_end(&self, id: &str, call: &str, reason: &str, by: &ActionContext) -> Result<()> {
        let found = self.find(id).await?;
        self.note(Entry::of_call_end(&found.record, call, reason, by), by).await
    }

    async fn note(&self, entry: Entry, by: &ActionContext) -> Result<()> {
        match &self.store {
            TokenStore::File(file) => {
                let now = by.now;
                blocking(file, move |file| file.note(&entry, now)).await
            }
            TokenStore::Redis(tokens) => Ok(tokens.note(&entry).await?),
        }
    }

    /// Up to `count` entries of the audit trail that fit, the newest first; `before` is what the page before said.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn trail(
        &self,
        filter: &TrailFilter,
        before: Option<u64>,
        count: usize,
        now: SystemTime,
    ) -> Result<TrailPage> {
        let mut page = TrailPage { entries: Vec::new(), before };
        loop {
            let entries: Vec<(u64, Entry)> = match &self.store {
                TokenStore::File(file) => {
                    let before = page.before;
                    blocking(file, move |file| file.trail(before, usize::MAX)).await?
                }
                TokenStore::Redis(tokens) => tokens.trail(page.before, count.max(256), now).await?,
            };
            if entries.is_empty() {
                page.before = None;
                return Ok(page);
            }
            for (version, entry) in entries {
                // Entries of one version are not parted.
                if page.entries.len() >= count && page.before != Some(version) {
                    return Ok(page);
                }
                page.before = Some(version);
                page.entries.extend(Some(entry).filter(|entry| filter.matches(entry)));
            }
        }
    }

    /// That there is no such token, with the nearest id there is.
    async fn unknown(&self, id: &str) -> RegistryError {
        let known = match &self.store {
            TokenStore::File(file) => blocking(file, TokenFile::list)
                .await
                .map(|records| records.into_iter().map(|record| record.id).collect()),
            TokenStore::Redis(tokens) => {
                match tokens.trace_of(id).await {
                    Ok(None) => {}
                    Ok(Some(lost)) => return lost,
                    Err(error) => return error.into(),
                }
                let ids = tokens.ids(&Cursor::default(), MAX_HINTS).await;
                ids.map(|ids| ids.into_iter().map(|cursor| cursor.id).collect()).map_err(RegistryError::from)
            }
        };
        known.map_or_else(|error| error, |known| RegistryError::Unknown { id: id.to_owned(), known })
    }
}

/// Files are read and written on a thread where that may block.
pub(super) async fn blocking<T: Send + 'static>(
    file: &Arc<TokenFile>,
    work: impl FnOnce(&TokenFile) -> Result<T> + Send + 'static,
) -> Result<T> {
    let file = file.clone();
    let done = tokio::task::spawn_blocking(move || work(&file)).await;
    done.expect("work on a token file returns its errors and does not panic")
}
