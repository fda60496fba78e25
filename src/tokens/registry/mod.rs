//! The records as those see them who issue tokens, in whichever store is configured: the same actions, rules and errors in both.
//!
//! Whatever changes a record goes through [`TokenFile`] or through the one writing function of [`RedisTokens`], and leaves an entry in the
//! audit trail.

mod import;
mod listing;
mod redis_store;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::audit::{Actor, Entry, TrailFilter, TrailPage};
use super::draft::{Change, Draft};
use super::error::{EditError, Fault, RegistryError};
use super::file::TokenFile;
use super::operation::{MAX_GRACE, Operation};
use super::outcome::{Edited, Found, Issued, Origin, Rotated};
use super::plans::Plans;
use super::record::Record;
use super::redis::RedisTokens;
use super::token::{self, NewToken, TokenHash};
use crate::config::Config;
use crate::store::Redis;

pub use import::{Imported, Refused};
pub use listing::{Filter, Listed, Listing};

/// Records that one call for a page looks through, however few of them fit.
const MAX_SCANNED: usize = 10_000;
/// Bytes of a key that tells a repeated request.
const MAX_KEY_BYTES: usize = 255;

/// Where records are managed.
pub enum Registry {
    /// The token file of the memory store.
    File(Arc<TokenFile>),
    /// Redis.
    Redis(RedisTokens),
}

impl Registry {
    /// The token file.
    #[must_use]
    pub fn with_file(config: &Config, path: &Path) -> Self {
        Self::File(Arc::new(TokenFile::new(config, path)))
    }

    /// Redis. The connection's deadline is best a long one: a person waits, not a request.
    #[must_use]
    pub fn with_redis(redis: Redis) -> Self {
        Self::Redis(RedisTokens::new(redis))
    }

    /// The same, that calls `changed` with the id of each token whose record in Redis it has changed, or may have.
    #[must_use]
    pub fn on_change(self, changed: impl Fn(&str) + Send + Sync + 'static) -> Self {
        match self {
            Self::File(file) => Self::File(file),
            Self::Redis(tokens) => Self::Redis(tokens.on_change(changed)),
        }
    }

    /// Checks what is asked for and makes the token. A request with a `key` (1 to 255 bytes) may be repeated with the same
    /// content: it makes one token, and only the first answer has its secret.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn issue(
        &self,
        config: &Config,
        draft: Draft,
        origin: Origin,
        key: Option<&str>,
        by: &Actor,
        now: SystemTime,
    ) -> Result<Issued, RegistryError> {
        if key.is_some_and(|key| !(1..=MAX_KEY_BYTES).contains(&key.len())) {
            let message = format!("the key must be 1 to {MAX_KEY_BYTES} bytes long");
            return Err(RegistryError::Invalid(vec![Fault { field: "key", message }]));
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
                    Some(key) => NewToken::with_id(&config.tokens.prefix, TokenHash::of(key).derived_id())?,
                    None => NewToken::generate(&config.tokens.prefix)?,
                };
                (token.id, token.hash, Some(token.secret))
            }
        };
        let mut record = draft.into_record(config, id, hash, now).map_err(RegistryError::Invalid)?;
        record.request.clone_from(&request);
        match (self.create(record, by, now).await, request) {
            (Err(RegistryError::Exists(id)), Some(request)) => {
                let found = self.find(config, &id).await?;
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
    pub async fn create(&self, record: Record, by: &Actor, now: SystemTime) -> Result<Edited, RegistryError> {
        match self {
            Self::File(file) => {
                let by = by.clone();
                blocking(file, move |file| file.create(record, &by, now)).await
            }
            Self::Redis(tokens) => redis_store::create(tokens, record, by, now).await,
        }
    }

    /// Up to `count` tokens (at least 1) that fit, in the order of their creation or of the file; `after` is what the page before said
    /// is next. Tokens that are there throughout are on exactly one page.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn list(
        &self,
        config: &Config,
        filter: &Filter,
        after: Option<&str>,
        count: usize,
        now: SystemTime,
    ) -> Result<Listing, RegistryError> {
        let mut after = after.map(listing::parse_cursor).transpose()?.unwrap_or_default();
        let count = count.max(1);
        let step = if filter.is_empty() { count } else { 256 };
        let mut listing = Listing::default();
        let mut scanned = 0;
        loop {
            let (page, last) = match self {
                Self::File(file) => {
                    let after = after.clone();
                    blocking(file, move |file| file.page(&after, step)).await?
                }
                Self::Redis(tokens) => tokens.page(&after, step.min(256), now).await?,
            };
            scanned += page.len();
            for (cursor, stored) in page {
                if !filter.matches(&stored.record, &config.default_plan.name, now) {
                    continue;
                }
                listing.tokens.push(stored.into());
                if listing.tokens.len() == count {
                    listing.next = Some(listing::cursor_text(&cursor));
                    return Ok(listing);
                }
            }
            let Some(last) = last else { return Ok(listing) };
            if scanned >= MAX_SCANNED {
                listing.next = Some(listing::cursor_text(&last));
                return Ok(listing);
            }
            after = last;
        }
    }

    /// One token: its record, the version of that, its use, and the limits that hold for it by this configuration.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn find(&self, config: &Config, id: &str) -> Result<Found, RegistryError> {
        let stored = match self {
            Self::File(file) => {
                let id = id.to_owned();
                blocking(file, move |file| file.read(&id)).await?
            }
            Self::Redis(tokens) if token::is_id(id) => tokens.read_whole(id).await?,
            Self::Redis(_) => None,
        };
        let Some(stored) = stored else { return Err(self.unknown(id).await) };
        let plan = Plans::new(config).resolve(&stored.record);
        Ok(Found { version: stored.version, record: stored.record, plan, usage: stored.usage })
    }

    /// Changes what a token is called or may do; if `expected` is told, only while its record has that version.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn update(
        &self,
        config: &Config,
        id: &str,
        change: Change,
        expected: Option<u64>,
        by: &Actor,
        now: SystemTime,
    ) -> Result<Edited, RegistryError> {
        self.operate(id, Operation::Update(change, Arc::new(Plans::new(config))), expected, by, now).await
    }

    /// Gives a token a new secret; its id and its log stay. The present secret works for `grace` (up to [`MAX_GRACE`]) more, older ones
    /// until their own ends; with a grace of zero all end at once. A token that was imported gets a secret of Callgate's.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn rotate(
        &self,
        config: &Config,
        id: &str,
        grace: Duration,
        expected: Option<u64>,
        by: &Actor,
        now: SystemTime,
    ) -> Result<Rotated, RegistryError> {
        if grace > MAX_GRACE {
            let message = format!("the grace period may be at most {}", humantime::format_duration(MAX_GRACE));
            return Err(RegistryError::Invalid(vec![Fault { field: "grace", message }]));
        }
        if !token::can_be_own(id) {
            // Whether there is such a token at all is the better answer.
            self.find(config, id).await?;
            return Err(RegistryError::NoSecret(id.to_owned()));
        }
        let token = NewToken::with_id(&config.tokens.prefix, id.to_owned())?;
        let edited = self.operate(id, Operation::Rotate(token.hash, grace), expected, by, now).await?;
        let old_until = edited.record.hashes.get(1).and_then(|old| old.expires_at);
        Ok(Rotated { edited, secret: token.secret, old_until })
    }

    /// Switches a token on or off.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn switch(
        &self,
        id: &str,
        on: bool,
        expected: Option<u64>,
        by: &Actor,
        now: SystemTime,
    ) -> Result<Edited, RegistryError> {
        self.operate(id, Operation::Switch(on), expected, by, now).await
    }

    /// Revokes a token, for good. One that is revoked already stays as it is.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn revoke(
        &self,
        id: &str,
        expected: Option<u64>,
        by: &Actor,
        now: SystemTime,
    ) -> Result<Edited, RegistryError> {
        self.operate(id, Operation::Revoke, expected, by, now).await
    }

    /// Revokes all tokens of an account; returns those that were not revoked before.
    ///
    /// # Errors
    /// [`RegistryError::Partly`] if some are revoked and then something goes wrong; [`RegistryError`]
    pub async fn revoke_account(
        &self,
        account: &str,
        by: &Actor,
        now: SystemTime,
    ) -> Result<Vec<Edited>, RegistryError> {
        match self {
            Self::File(file) => {
                let (account, by) = (account.to_owned(), by.clone());
                blocking(file, move |file| file.revoke_account(&account, &by, now)).await
            }
            Self::Redis(tokens) => redis_store::revoke_account(tokens, account, by, now).await,
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
    ) -> Result<TrailPage, RegistryError> {
        let mut page = TrailPage { entries: Vec::new(), before };
        loop {
            let entries: Vec<(u64, Entry)> = match self {
                Self::File(file) => {
                    let before = page.before;
                    blocking(file, move |file| file.trail(before, count)).await?
                }
                Self::Redis(tokens) => tokens.trail(page.before, count.max(256), now).await?,
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

    async fn operate(
        &self,
        id: &str,
        operation: Operation,
        expected: Option<u64>,
        by: &Actor,
        now: SystemTime,
    ) -> Result<Edited, RegistryError> {
        match self {
            Self::File(file) => {
                let (id, by) = (id.to_owned(), by.clone());
                blocking(file, move |file| file.operate(&id, &operation, expected, &by, now)).await
            }
            Self::Redis(tokens) => match redis_store::operate(tokens, id, &operation, expected, by, now).await? {
                Some(edited) => Ok(edited),
                None => Err(self.unknown(id).await),
            },
        }
    }

    /// That there is no such token, with the nearest id there is.
    async fn unknown(&self, id: &str) -> RegistryError {
        let known = match self {
            Self::File(file) => blocking(file, TokenFile::list)
                .await
                .map(|records| records.into_iter().map(|record| record.id).collect()),
            Self::Redis(tokens) => redis_store::some_ids(tokens).await,
        };
        known.map_or_else(|error| error, |known| RegistryError::Unknown { id: id.to_owned(), known })
    }
}

/// Files are read and written on a thread where that may block.
async fn blocking<T: Send + 'static>(
    file: &Arc<TokenFile>,
    work: impl FnOnce(&TokenFile) -> Result<T, EditError> + Send + 'static,
) -> Result<T, RegistryError> {
    let file = file.clone();
    let done = tokio::task::spawn_blocking(move || work(&file)).await;
    Ok(done.expect("work on a token file returns its errors and does not panic")?)
}
