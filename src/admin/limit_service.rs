//! A token's limits looked at and its log cleared, for the commands and for the admin API.

use std::sync::Arc;

use crate::config::{Config, RouteLimits};
use crate::limits::{LimitReport, LimitSubject, Limiter, Moment};
use crate::tokens::{ActionContext, Registry, RegistryError};

/// Attempts to read a record together with its limits, when it changes meanwhile.
const MAX_ATTEMPTS: usize = 5;

/// Reads limits and clears logs.
pub(crate) struct LimitService {
    config: Arc<Config>,
    registry: Arc<Registry>,
    limiter: Arc<Limiter>,
}

impl LimitService {
    /// `limiter` must be the one that decides: for the memory store, that of the running process.
    pub(crate) fn new(config: Arc<Config>, registry: Arc<Registry>, limiter: Arc<Limiter>) -> Self {
        Self { config, registry, limiter }
    }

    /// Reads how far each limit of a token is used up. Counts and writes nothing.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub(crate) async fn peek(&self, id: &str) -> Result<LimitReport, RegistryError> {
        for _ in 0..MAX_ATTEMPTS {
            let found = self.registry.find(id).await?;
            let subject = LimitSubject { token_id: id, version: found.version };
            if let Some(report) = self.limiter.peek(&subject, &found.plan, &self.route_limits(), Moment::now()).await? {
                return Ok(report);
            }
        }
        Err(RegistryError::Contended(id.to_owned()))
    }

    /// Clears a token's log, and those for routes with limits of their own. Other instances are notified; one that the message
    /// does not reach may repeat a refusal from its memory for up to a second. The audit trail tells who did it.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub(crate) async fn reset(&self, id: &str, by: &ActionContext) -> Result<(), RegistryError> {
        let found = self.registry.find(id).await?;
        self.limiter.reset(id, &self.route_limits()).await?;
        if let Err(error) = self.registry.note_reset(&found.record, by).await {
            tracing::warn!(token = id, %error, "the audit trail lacks the reset of a token's limits");
        }
        Ok(())
    }

    fn route_limits(&self) -> Vec<&RouteLimits> {
        self.config.routes.iter().filter_map(|route| route.limits.as_ref()).collect()
    }
}
