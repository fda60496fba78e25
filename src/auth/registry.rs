//! The records as those see them who issue tokens: create, list and revoke, in whichever store is configured.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::date::Date;
use super::did_you_mean;
use super::file::{EditError, Edited, TokenFile};
use super::permission::is_permission;
use super::plans::{self, Plans, parse_limit};
use super::record::{self, MAX_PERMISSIONS, Others, Record, StoredHash};
use super::redis_tokens::{RedisTokens, RedisTokensError};
use super::token::{self, TokenHash};
use crate::config::{CONCURRENT_CALLS, Config, Plan};
use crate::store::{Redis, StoreError};

/// So often a write is tried again when somebody else was faster.
const ATTEMPTS: usize = 5;

/// Where records are managed.
pub enum Registry {
    /// The token file of the memory store.
    File(Arc<TokenFile>),
    /// Redis.
    Redis(RedisTokens),
}

/// One token, looked up by its id.
#[derive(Debug)]
pub struct Found {
    /// The version of its record.
    pub version: u64,
    /// Its record.
    pub record: Record,
    /// Its limits.
    pub plan: Arc<Plan>,
}

/// Why a record was not managed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A token with this hash or id is there already.
    #[error("the token is registered already, with the id {0}")]
    Exists(String),
    /// No token has this id; the known ids are for a hint.
    #[error("no token has the id \"{id}\"{}", did_you_mean(id, known.iter().map(String::as_str)))]
    Unknown {
        /// The id that was asked for.
        id: String,
        /// The ids that there are.
        known: Vec<String>,
    },
    /// Others change the record all the time.
    #[error("the token {0} is being changed by others at the same time: try again")]
    Contended(String),
    /// The token file can't be read or written.
    #[error(transparent)]
    File(EditError),
    /// Redis can't be asked, or holds a damaged record.
    #[error(transparent)]
    Redis(#[from] RedisTokensError),
}

impl From<StoreError> for RegistryError {
    fn from(error: StoreError) -> Self {
        Self::Redis(error.into())
    }
}

impl From<EditError> for RegistryError {
    fn from(error: EditError) -> Self {
        match error {
            EditError::Exists(id) => Self::Exists(id),
            EditError::Unknown { id, known } => Self::Unknown { id, known },
            other @ (EditError::File(_) | EditError::Write { .. } | EditError::Locked(_)) => Self::File(other),
        }
    }
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

    /// Stores a new record.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn create(&self, record: Record) -> Result<Edited, RegistryError> {
        match self {
            Self::File(file) => blocking(file, |file| file.create(record)).await,
            Self::Redis(tokens) => match tokens.create(&record).await? {
                Some(_) => Ok(Edited { record, changed: true, rewritten: false }),
                None => Err(RegistryError::Exists(record.id)),
            },
        }
    }

    /// All records: those of Redis by creation, those of a file in its order.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn list(&self, now: SystemTime) -> Result<Vec<Record>, RegistryError> {
        match self {
            Self::File(file) => blocking(file, TokenFile::list).await,
            Self::Redis(tokens) => Ok(tokens.list(now).await?),
        }
    }

    /// One token: its record, the version of that (0 in a file), and the limits that hold for it by this configuration.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn find(&self, config: &Config, id: &str) -> Result<Found, RegistryError> {
        let found = match self {
            Self::File(file) => {
                let records = blocking(file, TokenFile::list).await?;
                records.into_iter().find(|record| record.id == id).map(|record| (0, record))
            }
            Self::Redis(tokens) if token::is_id(id) => tokens.read(id).await?,
            Self::Redis(_) => None,
        };
        let Some((version, record)) = found else {
            let known = self.list(SystemTime::now()).await?.into_iter().map(|record| record.id).collect();
            return Err(RegistryError::Unknown { id: id.to_owned(), known });
        };
        let plan = Plans::new(config).resolve(&record);
        Ok(Found { version, record, plan })
    }

    /// Revokes a token, for good. One that is revoked already stays as it is.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn revoke(&self, id: &str, now: SystemTime) -> Result<Edited, RegistryError> {
        let tokens = match self {
            Self::File(file) => {
                let id = id.to_owned();
                return blocking(file, move |file| file.revoke(&id, now)).await;
            }
            Self::Redis(tokens) => tokens,
        };
        for _ in 0..ATTEMPTS {
            let found = if token::is_id(id) { tokens.read(id).await? } else { None };
            let Some((version, mut record)) = found else {
                let known = tokens.list(now).await?.into_iter().map(|record| record.id).collect();
                return Err(RegistryError::Unknown { id: id.to_owned(), known });
            };
            if record.revoked_at.is_some() {
                return Ok(Edited { record, changed: false, rewritten: false });
            }
            record.revoked_at = Some(Date::new(now));
            if tokens.replace(&record, version).await?.is_some() {
                return Ok(Edited { record, changed: true, rewritten: false });
            }
        }
        Err(RegistryError::Contended(id.to_owned()))
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

/// A token that is asked for, not yet checked.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// A name for people.
    pub name: String,
    /// Whose it is to be.
    pub account: String,
    /// What it may do.
    pub permissions: Vec<String>,
    /// Its plan; `None`: the default one.
    pub plan: Option<String>,
    /// Limits that replace or extend those of its plan, as name and `120/1m`.
    pub limits: Vec<(String, String)>,
    /// Calls that it may have open at one time; `None`: as many as its plan says.
    pub concurrent_calls: Option<u32>,
    /// When it is to end.
    pub expires_at: Option<SystemTime>,
}

impl Draft {
    /// Checks everything and makes the record of the token with this id and hash.
    ///
    /// # Errors
    /// A sentence for each thing that is wrong.
    pub fn into_record(
        self,
        config: &Config,
        id: String,
        hash: TokenHash,
        now: SystemTime,
    ) -> Result<Record, Vec<String>> {
        let plans = Plans::new(config);
        let mut problems = Vec::new();
        problems.extend(record::check_name(&self.name).err().map(|why| format!("name {why}")));
        problems.extend(record::check_account(&self.account).err().map(|why| format!("account {why}")));
        if !token::is_id(&id) {
            problems.push("id must be 1 to 64 letters, digits, \".\", \"_\" and \"-\"".to_owned());
        }
        if self.permissions.len() > MAX_PERMISSIONS {
            problems.push(format!("at most {MAX_PERMISSIONS} permissions can be held"));
        }
        let strange = self.permissions.iter().filter(|permission| !is_permission(permission));
        problems.extend(strange.map(|p| format!("{p:?} is not a permission such as calls:read or calls:*")));
        let mut limits = Vec::new();
        for (name, text) in &self.limits {
            match parse_limit(name, text) {
                Ok(limit) => limits.push(limit),
                Err(why) => problems.push(format!("limit {name}={text}: {why}")),
            }
        }
        match plans.get(self.plan.as_deref()) {
            Some(plan) => {
                problems.extend(plans::check_overrides(plan, &limits).err().map(|why| format!("limit {why}")))
            }
            None => {
                let name = self.plan.as_deref().unwrap_or_default();
                problems.push(format!("no plan is called {name:?}{}", did_you_mean(name, plans.names())));
            }
        }
        if self.concurrent_calls.is_some_and(|calls| !CONCURRENT_CALLS.contains(&calls)) {
            let (least, most) = (CONCURRENT_CALLS.start(), CONCURRENT_CALLS.end());
            problems.push(format!("the number of concurrent calls must be from {least} to {most}"));
        }
        if self.expires_at.is_some_and(|end| Date::new(end).time() <= now) {
            problems.push("the end must lie in the future".to_owned());
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        // In the order that a store gives them back in.
        limits.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Record {
            id,
            name: self.name,
            account: self.account,
            permissions: self.permissions,
            plan: self.plan,
            limits,
            concurrent_calls: self.concurrent_calls,
            hashes: vec![StoredHash { sha256: hash, expires_at: None }],
            created_at: Some(Date::new(now)),
            expires_at: self.expires_at.map(Date::new),
            enabled: true,
            revoked_at: None,
            others: Others::default(),
        })
    }
}
