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
use super::principal::Principal;
use super::principal::principal_of;
use super::refusal::{Reason, Refusal};
use crate::config::Config;
use crate::store::Redis;
use crate::tokens::{RedisTokens, RedisTokensError};

/// Tells who a request is. Each worker has one, for the Redis connection that is in it.
pub struct Authenticator {
    prefix: Arc<str>,
    source: Source,
    failures: Arc<Failures>,
}

enum Source {
    File(Arc<FileStore>),
    Redis { redis: Redis, tokens: RedisTokens, cache: Arc<TokenCache> },
}

impl Authenticator {
    /// Reads tokens from the file of the memory store, which all workers share.
    #[must_use]
    pub fn with_file(config: &Config, file: Arc<FileStore>, failures: Arc<Failures>) -> Self {
        Self { prefix: config.tokens.prefix.clone(), source: Source::File(file), failures }
    }

    /// Reads tokens from Redis, through a cache that all workers share.
    #[must_use]
    pub fn with_redis(config: &Config, redis: Redis, cache: Arc<TokenCache>, failures: Arc<Failures>) -> Self {
        let tokens = RedisTokens::new(redis.clone());
        Self { prefix: config.tokens.prefix.clone(), source: Source::Redis { redis, tokens, cache }, failures }
    }

    /// The principal of a request with these headers from `client` at `now`. Redis is asked only for tokens that this process doesn't know,
    /// and not for a client that has failed too often.
    ///
    /// # Errors
    /// [`Refusal`]
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        client: IpAddr,
        now: SystemTime,
    ) -> Result<Arc<Principal>, Refusal> {
        let credential = self.credential(headers, client)?;
        self.find(&credential, client, now, false).await
    }

    /// Reads the record anew, after the limiter found that it has another version than `stale`.
    ///
    /// # Errors
    /// [`Refusal`]
    pub async fn reread(
        &self,
        stale: &Principal,
        headers: &HeaderMap,
        client: IpAddr,
        now: SystemTime,
    ) -> Result<Arc<Principal>, Refusal> {
        let credential = self.credential(headers, client)?;
        if let Source::Redis { cache, .. } = &self.source {
            cache.remove_version(&credential.hash, stale.version);
        }
        self.find(&credential, client, now, true).await
    }

    /// The present epoch. Take it before the store is asked to confirm a record.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        match &self.source {
            Source::File(_) => Epoch::default(),
            Source::Redis { cache, .. } => cache.changes.epoch(),
        }
    }

    /// Notes that the store, asked in the epoch `asked`, still has the version of `principal`: its record may be used for another
    /// `tokens.cache_ttl` should the store go away.
    pub fn confirm(&self, principal: &Principal, asked: Epoch, now: SystemTime) {
        match &self.source {
            Source::File(_) => {}
            Source::Redis { cache, .. } => {
                principal.confirm(now);
                cache.confirm(principal, asked);
            }
        }
    }

    /// Whether the record of `principal` is known to have been current when the outage began. The store was asked in the epoch
    /// `asked` and did not answer.
    #[must_use]
    pub fn is_current(&self, principal: &Principal, asked: Epoch) -> bool {
        match &self.source {
            Source::File(_) => true,
            Source::Redis { redis, cache, .. } => {
                cache.changes.is_current(&principal.id, principal.confirmed_at(), asked, redis.lost_at())
            }
        }
    }

    fn credential<'a>(&self, headers: &'a HeaderMap, client: IpAddr) -> Result<Credential<'a>, Refusal> {
        Credential::from_headers(headers, &self.prefix).map_err(|refusal| self.judged(client, refusal))
    }

    /// What is said of a token that failed without a look-up.
    fn judged(&self, client: IpAddr, refusal: Refusal) -> Refusal {
        match refusal {
            Refusal::Invalid(_) => self.failures.failed(client, refusal),
            Refusal::Missing
            | Refusal::Repeated
            | Refusal::TooManyFailures { .. }
            | Refusal::LookupsExhausted
            | Refusal::Unavailable => refusal,
        }
    }

    /// `was_good`: the token was good a moment ago, so it may be looked up whoever else fails.
    async fn find(
        &self,
        credential: &Credential<'_>,
        client: IpAddr,
        now: SystemTime,
        was_good: bool,
    ) -> Result<Arc<Principal>, Refusal> {
        let (tokens, cache) = match &self.source {
            Source::File(file) => {
                let found = file.find(credential).and_then(|principal| unexpired(principal, now));
                return found.map_err(|refusal| self.judged(client, refusal));
            }
            Source::Redis { tokens, cache, .. } => (tokens, cache),
        };
        let known = cache.get(&credential.hash);
        if let Some(principal) = &known
            && principal.is_fresh(now, cache.ttl)
            && !principal.is_expired(now)
        {
            return Ok(principal.clone());
        }
        let leave = match &known {
            None if !was_good => self.failures.ask(client, &credential.hash)?,
            None | Some(_) => LookupPermit::default(),
        };
        // Most requests find their token: what asking takes would be moved about with each of them.
        let read = cache.once(credential.hash, || Box::pin(look_up(tokens, cache, credential, now))).await;
        let found = match (read, known) {
            (Ok(principal), _) => unexpired(principal, now),
            // Its end may have been put off, but nobody can tell at the moment.
            (Err(Refusal::Unavailable), Some(known)) if known.is_expired(now) => Err(Refusal::Invalid(Reason::Expired)),
            (Err(refusal), _) => Err(refusal),
        };
        if let Err(Refusal::Invalid(_)) = found {
            self.failures.record_miss(client, leave);
        }
        found
    }
}

fn unexpired(principal: Arc<Principal>, now: SystemTime) -> Result<Arc<Principal>, Refusal> {
    if principal.is_expired(now) { Err(Refusal::Invalid(Reason::Expired)) } else { Ok(principal) }
}

/// Asks Redis. Expired principals are found too: the caller judges that, at every use.
async fn look_up(
    tokens: &RedisTokens,
    cache: &TokenCache,
    credential: &Credential<'_>,
    now: SystemTime,
) -> Result<Arc<Principal>, Refusal> {
    let (first, second) = credential.candidates();
    let found = match &second {
        None => ask(tokens, cache, &first, now).await,
        Some(second) => {
            // Both at once: still one round trip.
            let both = tokio::join!(ask(tokens, cache, &first, now), ask(tokens, cache, second, now));
            match both {
                (Ok(principal), _) | (_, Ok(principal)) => Ok(principal),
                // "Unknown" from one and no answer from the other is no "unknown".
                (Err(Refusal::Invalid(Reason::Unknown)), other) => other,
                (refusal, _) => refusal,
            }
        }
    };
    match &found {
        Ok(principal) => cache.insert(credential.hash, principal.clone()),
        Err(Refusal::Invalid(_)) => cache.remove(&credential.hash),
        // What is cached may still serve until it is too old.
        Err(
            Refusal::Missing
            | Refusal::Repeated
            | Refusal::TooManyFailures { .. }
            | Refusal::LookupsExhausted
            | Refusal::Unavailable,
        ) => {}
    }
    found
}

async fn ask(
    tokens: &RedisTokens,
    cache: &TokenCache,
    candidate: &Candidate,
    now: SystemTime,
) -> Result<Arc<Principal>, Refusal> {
    let (version, record) = match tokens.read(&candidate.id).await {
        Ok(Some(found)) => found,
        Ok(None) => return Err(Refusal::Invalid(Reason::Unknown)),
        Err(RedisTokensError::Store(_)) => return Err(Refusal::Unavailable),
        Err(error @ RedisTokensError::Damaged { .. }) => {
            cache.plans.complain_once(&format!("token {}", candidate.id), || {
                tracing::error!("{error}; its token is answered with 503")
            });
            return Err(Refusal::Unavailable);
        }
    };
    principal_of(&record, version, candidate.hash, &cache.plans, now)
}
