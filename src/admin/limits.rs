//! Looking at a token's limits and clearing its log, for the commands and for the admin API.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;

use super::Call;
use super::answer::{Answer, json};
use super::problem::{Problem, sentence};
use crate::config::{Config, RouteLimits};
use crate::limits::{LimitReport, LimitSubject, Limiter};
use crate::store::StoreError;
use crate::tokens::{Registry, RegistryError};

/// So often a record is read again when it changes under a look at its limits.
const ATTEMPTS: usize = 5;

/// Where limits are looked at and logs cleared.
pub struct LimitService {
    config: Arc<Config>,
    registry: Arc<Registry>,
    limiter: Limiter,
}

/// Why a token's limits were not looked at, or its log not cleared.
#[derive(Debug, thiserror::Error)]
pub enum LimitServiceError {
    /// The token can't be found.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The limiter's Redis gives no answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody changes the record all the time.
    #[error("the token {0} is being changed by others at the same time: try again")]
    Contended(String),
}

impl LimitService {
    /// `limiter` must be the one that decides: for the memory store, that of the running process.
    #[must_use]
    pub fn new(config: Arc<Config>, registry: Arc<Registry>, limiter: Limiter) -> Self {
        Self { config, registry, limiter }
    }

    /// Where a token stands. Counts and writes nothing.
    ///
    /// # Errors
    /// [`LimitServiceError`]
    pub async fn peek(&self, id: &str) -> Result<LimitReport, LimitServiceError> {
        for _ in 0..ATTEMPTS {
            let found = self.registry.find(&self.config, id).await?;
            let asker = LimitSubject { token_id: id, version: found.version };
            // A clock before 1970 counts as 1970; 64 bits of milliseconds outlast it.
            let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
            if let Some(report) = self.limiter.peek(&asker, &found.plan, &self.routes(), now_ms).await? {
                return Ok(report);
            }
        }
        Err(LimitServiceError::Contended(id.to_owned()))
    }

    /// Clears a token's log, and those for routes with limits of their own. Other instances are told; one that does not hear of it may repeat a
    /// refusal from its memory for up to a second.
    ///
    /// # Errors
    /// [`LimitServiceError`]
    pub async fn reset(&self, id: &str) -> Result<(), LimitServiceError> {
        self.registry.find(&self.config, id).await?;
        Ok(self.limiter.reset(id, &self.routes()).await?)
    }

    /// Limits that routes have of their own.
    fn routes(&self) -> Vec<&RouteLimits> {
        self.config.routes.iter().filter_map(|route| route.limits.as_ref()).collect()
    }
}

/// `GET /api/limits/{id}`: where a token stands.
pub(super) async fn show(call: Call<'_>) -> Result<Answer, Problem> {
    call.query.done()?;
    Ok(json(StatusCode::OK, &call.admin.desk.limits.peek(call.id).await?))
}

/// `DELETE /api/limits/{id}`: its log is cleared.
pub(super) async fn clear(call: Call<'_>) -> Result<Answer, Problem> {
    call.query.done()?;
    call.admin.desk.limits.reset(call.id).await?;
    Ok(json(StatusCode::OK, &serde_json::json!({ "id": call.id, "reset": true })))
}

impl From<LimitServiceError> for Problem {
    fn from(error: LimitServiceError) -> Self {
        match error {
            LimitServiceError::Registry(error) => error.into(),
            LimitServiceError::Contended(_) => Self::Conflict(sentence(&error.to_string()), "contended"),
            LimitServiceError::Store(error) => RegistryError::from(error).into(),
        }
    }
}
