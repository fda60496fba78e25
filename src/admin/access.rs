//! Access to the admin listener: by an admin token, or without one where the configuration allows it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;

use crate::bearer::{BearerError, bearer_token};
use crate::config::{AdminAccess, AdminToken, Role};
use crate::gcra::{NetworkLimiter, Rate};
use crate::tokens::TokenHash;

/// Failures are limited per minute.
const WINDOW_MS: u64 = 60_000;

/// The sender of a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Caller {
    /// The name of the token; `None` without one. No browser sends a token by itself.
    pub(super) token: Option<Arc<str>>,
    pub(super) role: Role,
}

/// Why a caller is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum AccessDenied {
    #[error("This request needs an admin token: Authorization: Bearer TOKEN.")]
    Missing,
    #[error("Send one Authorization header, not several.")]
    Repeated,
    #[error("The admin token is not valid.")]
    Invalid,
    #[error("Too many wrong admin tokens came from this address; try again in {0} seconds.")]
    TooManyFailures(u64),
}

pub(super) struct Access {
    anonymous: Option<Role>,
    tokens: Vec<AdminToken>,
    failures: NetworkLimiter,
    began: Instant,
}

impl Access {
    pub(super) fn new(config: &AdminAccess) -> Self {
        Self {
            anonymous: config.anonymous,
            tokens: config.tokens.clone(),
            failures: NetworkLimiter::new(Rate::new(config.max_failures, WINDOW_MS), 32, 64),
            began: Instant::now(),
        }
    }

    /// The sender of a request, by the `Authorization` header alone.
    pub(super) fn caller(&self, headers: &HeaderMap, client: IpAddr, now: Instant) -> Result<Caller, AccessDenied> {
        let token = match bearer_token(headers) {
            Ok(token) => Some(token),
            Err(BearerError::Malformed) => None,
            Err(BearerError::Repeated) => return Err(AccessDenied::Repeated),
            Err(BearerError::Missing) => {
                let role = self.anonymous.ok_or(AccessDenied::Missing)?;
                return Ok(Caller { token: None, role });
            }
        };
        let now_us = now.saturating_duration_since(self.began).as_micros() as u64;
        // Before the token is looked at: otherwise the wait would not stop guessing.
        let wait_us = self.failures.wait_us(client, now_us);
        if wait_us > 0 {
            return Err(AccessDenied::TooManyFailures(wait_us.div_ceil(1_000_000)));
        }
        // All are compared, each in constant time, so that the time does not show where a match is.
        let hash = token.map(TokenHash::of);
        let found =
            self.tokens.iter().fold(None, |found, token| (hash == Some(token.sha256)).then_some(token).or(found));
        let Some(AdminToken { name, role, .. }) = found else {
            tracing::warn!(%client, "an attempt at the admin listener with a wrong token");
            self.failures.record(client, now_us);
            return Err(AccessDenied::Invalid);
        };
        Ok(Caller { token: Some(name.clone()), role: *role })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header;

    use super::*;

    fn access(anonymous: Option<Role>) -> Access {
        let token =
            |name: &str, role, secret: &str| AdminToken { name: name.into(), role, sha256: TokenHash::of(secret) };
        let tokens = vec![token("watch", Role::Read, "one"), token("ops", Role::Write, "two")];
        Access::new(&AdminAccess { anonymous, tokens, public_metrics: false, max_failures: 3 })
    }

    fn sent(access: &Access, lines: &[&str], now: Instant) -> Result<(String, Role), AccessDenied> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::AUTHORIZATION, line.parse().unwrap());
        }
        let caller = access.caller(&headers, "192.0.2.1".parse().unwrap(), now)?;
        Ok((caller.token.as_deref().unwrap_or("anonymous").to_owned(), caller.role))
    }

    #[test]
    fn tokens_have_names_and_roles() {
        let (access, now) = (access(None), Instant::now());
        assert_eq!(sent(&access, &["Bearer one"], now), Ok(("watch".into(), Role::Read)));
        assert_eq!(sent(&access, &["bearer  two"], now), Ok(("ops".into(), Role::Write)));
        for wrong in ["Bearer three", "Bearer", "Bearer one two"] {
            assert_eq!(sent(&access, &[wrong], now), Err(AccessDenied::Invalid), "{wrong}");
        }
        assert_eq!(sent(&access, &["Bearer one", "Bearer one"], now), Err(AccessDenied::Repeated));
        for none in [&[][..], &["Basic b25l"], &["one"], &[""]] {
            assert_eq!(sent(&access, none, now), Err(AccessDenied::Missing), "{none:?}");
        }
    }

    #[test]
    fn a_wrong_token_is_refused_even_if_none_is_needed() {
        let (access, now) = (access(Some(Role::Read)), Instant::now());
        assert_eq!(sent(&access, &[], now), Ok(("anonymous".into(), Role::Read)));
        assert_eq!(sent(&access, &["Bearer two"], now), Ok(("ops".into(), Role::Write)));
        assert_eq!(sent(&access, &["Bearer three"], now), Err(AccessDenied::Invalid));
    }

    #[test]
    fn after_too_many_wrong_tokens_a_good_one_waits_too() {
        let (access, now) = (access(None), Instant::now());
        for _ in 0..3 {
            assert_eq!(sent(&access, &["Bearer three"], now), Err(AccessDenied::Invalid));
        }
        let soon = now + Duration::from_millis(500);
        assert_eq!(sent(&access, &["Bearer one"], soon), Err(AccessDenied::TooManyFailures(20)));
        assert_eq!(sent(&access, &["Bearer a b"], soon), Err(AccessDenied::TooManyFailures(20)));
        assert_eq!(sent(&access, &[], soon), Err(AccessDenied::Missing), "a request without a token is no guess");
        assert!(sent(&access, &["Bearer one"], now + Duration::from_secs(20)).is_ok());
    }
}
