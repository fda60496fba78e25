//! Who asks on the admin listener, and what they may do.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, header};

use super::failures::Failures;
use crate::config::{AdminAccess, Role};
use crate::tokens::TokenHash;

/// What the audit trail calls those who need not say who they are.
const ANONYMOUS: &str = "anonymous";

/// Who asks.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Caller {
    /// The name of their token.
    pub(super) name: Arc<str>,
    pub(super) role: Role,
    /// Whether they showed a token, which no browser does by itself.
    pub(super) has_token: bool,
}

/// Why nobody knows who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// No Bearer token was shown, and one is needed.
    Missing,
    /// More than one `Authorization` line.
    Repeated,
    /// No admin token is like that.
    Wrong,
    /// Too many were wrong: try again after so many seconds.
    TooMany(u64),
}

/// Who may use the admin listener.
pub(super) struct Access {
    anonymous: Option<Caller>,
    keys: Vec<(TokenHash, Caller)>,
    failures: Failures,
}

impl Access {
    pub(super) fn new(config: &AdminAccess) -> Self {
        let caller = |name: &str, role, has_token| Caller { name: name.into(), role, has_token };
        let keys = config.tokens.iter().filter_map(|token| {
            // The configuration takes nothing else than 64 hexadecimal digits.
            TokenHash::from_hex(token.sha256.expose()).map(|hash| (hash, caller(&token.name, token.role, true)))
        });
        Self {
            anonymous: config.anonymous.map(|role| caller(ANONYMOUS, role, false)),
            keys: keys.collect(),
            failures: Failures::new(config.max_failures),
        }
    }

    /// Who asks, by the `Authorization` header alone.
    pub(super) fn caller(&self, headers: &HeaderMap, client: IpAddr, now: Instant) -> Result<Caller, Denied> {
        let mut lines = headers.get_all(header::AUTHORIZATION).iter();
        let line = lines.next();
        if lines.next().is_some() {
            return Err(Denied::Repeated);
        }
        let Some(token) = line.and_then(|line| bearer(line.as_bytes())) else {
            return self.anonymous.clone().ok_or(Denied::Missing);
        };
        // Before the token is looked at: else the wait would not keep anybody from guessing.
        if let Some(wait) = self.failures.wait(client, now) {
            return Err(Denied::TooMany(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)));
        }
        let hash = std::str::from_utf8(token).map(TokenHash::of).map_err(|_| Denied::Wrong);
        // All are compared, each in constant time, so that the time tells nothing of where a match is.
        let known = hash.and_then(|hash| {
            let compared =
                self.keys.iter().fold(None, |found, (key, caller)| (*key == hash).then_some(caller).or(found));
            compared.cloned().ok_or(Denied::Wrong)
        });
        if known.is_err() {
            tracing::warn!(%client, "an attempt at the admin listener with a wrong token");
            self.failures.count(client, now);
        }
        known
    }
}

/// The token of `Bearer TOKEN`; `None` for other schemes.
fn bearer(line: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = line.split_at_checked(b"bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AdminToken, Secret};

    fn access(anonymous: Option<Role>) -> Access {
        let token = |name: &str, role, secret: &str| AdminToken {
            name: name.into(),
            role,
            sha256: Secret::new(TokenHash::of(secret).to_hex()),
        };
        let tokens = vec![token("watch", Role::Read, "one"), token("ops", Role::Write, "two")];
        Access::new(&AdminAccess { anonymous, tokens, public_metrics: false, max_failures: 3 })
    }

    fn asked(access: &Access, lines: &[&str], now: Instant) -> Result<(String, Role), Denied> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::AUTHORIZATION, line.parse().unwrap());
        }
        let caller = access.caller(&headers, "192.0.2.1".parse().unwrap(), now)?;
        Ok((caller.name.to_string(), caller.role))
    }

    #[test]
    fn tokens_have_names_and_roles() {
        let (access, now) = (access(None), Instant::now());
        assert_eq!(asked(&access, &["Bearer one"], now), Ok(("watch".into(), Role::Read)));
        assert_eq!(asked(&access, &["bearer  two"], now), Ok(("ops".into(), Role::Write)));
        assert_eq!(asked(&access, &["Bearer three"], now), Err(Denied::Wrong));
        assert_eq!(asked(&access, &["Bearer one", "Bearer one"], now), Err(Denied::Repeated));
        for none in [&[][..], &["Basic b25l"], &["one"], &[""]] {
            assert_eq!(asked(&access, none, now), Err(Denied::Missing), "{none:?}");
        }
    }

    #[test]
    fn a_wrong_token_is_refused_where_none_is_needed() {
        let (access, now) = (access(Some(Role::Read)), Instant::now());
        assert_eq!(asked(&access, &[], now), Ok(("anonymous".into(), Role::Read)));
        assert_eq!(asked(&access, &["Bearer two"], now), Ok(("ops".into(), Role::Write)));
        assert_eq!(asked(&access, &["Bearer three"], now), Err(Denied::Wrong));
    }

    #[test]
    fn after_too_many_wrong_ones_even_a_good_one_waits() {
        let (access, now) = (access(None), Instant::now());
        for _ in 0..3 {
            assert_eq!(asked(&access, &["Bearer three"], now), Err(Denied::Wrong));
        }
        let soon = now + std::time::Duration::from_millis(500);
        assert_eq!(asked(&access, &["Bearer one"], soon), Err(Denied::TooMany(60)));
        assert_eq!(asked(&access, &[], soon), Err(Denied::Missing), "who shows none guesses nothing");
        assert!(asked(&access, &["Bearer one"], now + super::super::failures::WINDOW).is_ok());
    }
}
