//! A token's limits looked at and its log cleared, for the commands and for the admin API.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::{Config, RouteLimits};
use crate::limits::{LimitReport, LimitSubject, Limiter};
use crate::store::StoreError;
use crate::tokens::{Registry, RegistryError};

/// Attempts to read a record together with its limits, when it changes meanwhile.
const MAX_ATTEMPTS: usize = 5;

/// Reads limits and clears logs.
pub struct LimitService {
    config: Arc<Config>,
    registry: Arc<Registry>,
    limiter: Limiter,
}

/// Why a token's limits were not read, or its log not cleared.
#[derive(Debug, thiserror::Error)]
pub enum LimitServiceError {
    /// The token can't be found.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The limiter's Redis does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others change the record all the time.
    #[error("the token {0} is being changed by others at the same time: try again")]
    Contended(String),
}

impl LimitService {
    /// `limiter` must be the one that decides: for the memory store, that of the running process.
    #[must_use]
    pub fn new(config: Arc<Config>, registry: Arc<Registry>, limiter: Limiter) -> Self {
        Self { config, registry, limiter }
    }

    /// Reads how far each limit of a token is used up. Counts and writes nothing.
    ///
    /// # Errors
    /// [`LimitServiceError`]
    pub async fn peek(&self, id: &str) -> Result<LimitReport, LimitServiceError> {
        for _ in 0..MAX_ATTEMPTS {
            let found = self.registry.find(&self.config, id).await?;
            let subject = LimitSubject { token_id: id, version: found.version };
            // A clock before 1970 counts as 1970; 64 bits of milliseconds outlast it.
            let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
            if let Some(report) = self.limiter.peek(&subject, &found.plan, &self.route_limits(), now_ms).await? {
                return Ok(report);
            }
        }
        Err(LimitServiceError::Contended(id.to_owned()))
    }

    /// Clears a token's log, and those for routes with limits of their own. Other instances are notified; one that the message
    /// does not reach may repeat a refusal from its memory for up to a second.
    ///
    /// # Errors
    /// [`LimitServiceError`]
    pub async fn reset(&self, id: &str) -> Result<(), LimitServiceError> {
        self.registry.find(&self.config, id).await?;
        Ok(self.limiter.reset(id, &self.route_limits()).await?)
    }

    fn route_limits(&self) -> Vec<&RouteLimits> {
        self.config.routes.iter().filter_map(|route| route.limits.as_ref()).collect()
    }
}
