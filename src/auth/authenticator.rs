//! The step `authenticate`: from a request's headers to who it is.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;

use super::cache::TokenCache;
use super::changes::Epoch;
use super::credential::{Candidate, Credential};
use super::failures::{Failures, LookupPermit};
use super::file_store::FileStore;
use super::principal::{Principal, principal_of};
use super::refusal::{Reason, Refusal, Refused};
use crate::config::Config;
use crate::store::Redis;
use crate::tokens::{Plans, RedisTokens, RedisTokensError};

/// Finds out who sent a request, by one configuration. Each worker has one, for the Redis connection that is in it.
pub struct Authenticator {
    config: Arc<Config>,
    plans: Arc<Plans>,
    source: RecordSource,
    failures: Arc<Failures>,
}

/// Where records come from.
#[derive(Clone)]
enum RecordSource {
    File(Arc<FileStore>),
    Redis { redis: Redis, tokens: RedisTokens, cache: Arc<TokenCache> },
}

impl Authenticator {
    /// Reads tokens from the file of the memory store, which all workers share.
    pub fn with_file(config: Arc<Config>, plans: Arc<Plans>, file: Arc<FileStore>, failures: Arc<Failures>) -> Self {
        Self { config, plans, source: RecordSource::File(file), failures }
    }

    /// Reads tokens from Redis, through a cache that all workers share.
    pub fn with_redis(
        config: Arc<Config>,
        plans: Arc<Plans>,
        redis: Redis,
        cache: Arc<TokenCache>,
        failures: Arc<Failures>,
    ) -> Self {
        let tokens = RedisTokens::new(redis.clone());
        Self { config, plans, source: RecordSource::Redis { redis, tokens, cache }, failures }
    }

    /// The same by another configuration.
    #[must_use]
    pub fn under(&self, config: Arc<Config>, plans: Arc<Plans>, failures: Arc<Failures>) -> Self {
        Self { config, plans, source: self.source.clone(), failures }
    }

    /// The principal of a request with these headers from `client` at `now`. Redis is asked only for tokens that this process doesn't know,
    /// and not for a client that has failed too often.
    ///
    /// # Errors
    /// [`Refused`]
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        client: IpAddr,
        now: SystemTime,
    ) -> Result<Arc<Principal>, Refused> {
        let credential = self.credential(headers, client)?;
        self.find(&credential, client, now, false).await
    }

    /// Reads the record anew, after the limiter found that it has another version than `stale`.
    ///
    /// # Errors
    /// [`Refused`]
    pub async fn reread(
        &self,
        stale: &Principal,
        headers: &HeaderMap,
        client: IpAddr,
        now: SystemTime,
    ) -> Result<Arc<Principal>, Refused> {
        let credential = self.credential(headers, client)?;
        if let RecordSource::Redis { cache, .. } = &self.source {
            cache.remove_version(&credential.hash, stale.version);
        }
        self.find(&credential, client, now, true).await
    }

    /// The present epoch. Take it before the store is asked to confirm a record.
    pub fn epoch(&self) -> Epoch {
        match &self.source {
            RecordSource::File(_) => Epoch::default(),
            RecordSource::Redis { cache, .. } => cache.changes.epoch(),
        }
    }

    /// Notes that the store, asked in the epoch `asked`, still has the version of `principal`: its record may be used for another
    /// `tokens.cache_ttl` should the store go away.
    pub fn confirm(&self, principal: &Principal, asked: Epoch, now: SystemTime) {
        if let RecordSource::Redis { cache, .. } = &self.source {
            principal.confirm(now);
            cache.confirm(principal, asked);
        }
    }

    /// Whether the record of `principal` is known to have been current when the outage began. The store was asked in the epoch
    /// `asked` and did not answer.
    pub(crate) fn is_current(&self, principal: &Principal, asked: Epoch) -> bool {
        let RecordSource::Redis { redis, cache, .. } = &self.source else { return true };
        cache.changes.is_current(&principal.id, principal.confirmed_at(), asked, redis.lost_at())
    }

    fn credential<'a>(&self, headers: &'a HeaderMap, client: IpAddr) -> Result<Credential<'a>, Refusal> {
        Credential::from_headers(headers, &self.config.tokens.prefix)
            .map_err(|refusal| self.failures.record_failure(client, refusal))
    }

    /// `was_good`: the token was good a moment ago, so it may be looked up whoever else fails.
    async fn find(
        &self,
        credential: &Credential<'_>,
        client: IpAddr,
        now: SystemTime,
        was_good: bool,
    ) -> Result<Arc<Principal>, Refused> {
        let (tokens, cache) = match &self.source {
            RecordSource::File(file) => {
                let found = file.find(credential).map(|principal| self.under_plans(principal));
                return found.and_then(|principal| unexpired(principal, now)).map_err(|Refused { refusal, token }| {
                    Refused { refusal: self.failures.record_failure(client, refusal), token }
                });
            }
            RecordSource::Redis { tokens, cache, .. } => (tokens, cache),
        };
        let known = match cache.principals.get(&credential.hash) {
            Some(known) if known.is_fresh(now, self.config.tokens.cache_ttl) && !known.is_expired(now) => {
                return Ok(self.under_plans(known));
            }
            known => known,
        };
        let permit = match &known {
            None if !was_good => self.failures.permit_lookup(client, &credential.hash)?,
            None | Some(_) => LookupPermit::default(),
        };
        // Boxed: most requests find their token in the cache, and their futures need not have room for the look-up.
        let read = cache.once(credential.hash, || Box::pin(self.look_up(tokens, cache, credential, now))).await;
        let found = match (read, known) {
            (Ok(principal), _) => unexpired(self.under_plans(principal), now),
            // Its end may have been put off, but nobody can tell at the moment.
            (Err(Refused { refusal: Refusal::Unavailable, .. }), Some(known)) if known.is_expired(now) => {
                unexpired(known, now)
            }
            (Err(refused), _) => Err(refused),
        };
        match &found {
            Err(refused) if refused.is_invalid() => self.failures.record_miss(client, permit),
            Ok(_) => self.failures.record_success(client),
            Err(_) => {}
        }
        found
    }

    /// Principals know the plan of the configuration that they were made under. The first request under another one finds it anew.
    fn under_plans(&self, principal: Arc<Principal>) -> Arc<Principal> {
        if principal.plans() == self.plans.id() {
            return principal;
        }
        let own = Arc::new(principal.under(&self.plans));
        // A request that began under the last configuration keeps it to itself.
        if let RecordSource::Redis { cache, .. } = &self.source
            && principal.plans() < self.plans.id()
        {
            cache.principals.insert(own.hash, own.clone());
        }
        own
    }

    /// Asks Redis. Expired principals are found too: the caller judges that, at every use.
    async fn look_up(
        &self,
        tokens: &RedisTokens,
        cache: &TokenCache,
        credential: &Credential<'_>,
        now: SystemTime,
    ) -> Result<Arc<Principal>, Refused> {
        let (first, second) = credential.candidates();
        let found = match &second {
            None => self.read_record(tokens, &first, now).await,
            Some(second) => {
                // Both at once: still one round trip.
                let both = tokio::join!(self.read_record(tokens, &first, now), self.read_record(tokens, second, now));
                match both {
                    (Ok(principal), _) | (_, Ok(principal)) => Ok(principal),
                    // "Unknown" from one and no answer from the other is no "unknown".
                    (Err(Refused::UNKNOWN), other) => other,
                    (refused, _) => refused,
                }
            }
        };
        match &found {
            Ok(principal) => cache.principals.insert(credential.hash, principal.clone()),
            Err(refused) if refused.is_invalid() => drop(cache.principals.remove(&credential.hash)),
            // What is cached may still serve until it is too old.
            Err(_) => {}
        }
        found
    }

    async fn read_record(
        &self,
        tokens: &RedisTokens,
        candidate: &Candidate,
        now: SystemTime,
    ) -> Result<Arc<Principal>, Refused> {
        let (version, record) = match tokens.read(&candidate.id).await {
            Ok(Some(found)) => found,
            Ok(None) => return Err(Refused::UNKNOWN),
            Err(RedisTokensError::Store(_)) => return Err(Refusal::Unavailable.into()),
            Err(error @ RedisTokensError::Damaged { .. }) => {
                self.plans.complain_once(&format!("token {}", candidate.id), || {
                    tracing::error!("{error}; its token is answered with 503")
                });
                return Err(Refusal::Unavailable.into());
            }
        };
        principal_of(&record, version, candidate.hash, &self.plans, now)
    }
}

fn unexpired(principal: Arc<Principal>, now: SystemTime) -> Result<Arc<Principal>, Refused> {
    if !principal.is_expired(now) {
        return Ok(principal);
    }
    let token = Some((principal.id.clone(), principal.name.clone()));
    Err(Refused { refusal: Refusal::Invalid(Reason::Expired), token })
}
