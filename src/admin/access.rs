//! Access to the admin listener: by an admin token, by a client certificate, or without either where the configuration allows it.

use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;

use super::connection::AdminPeer;
use crate::bearer::{BearerError, bearer_token};
use crate::config::{AdminAccess, AdminClient, AdminToken, Role};
use crate::gcra::{NetworkLimiter, Rate};
use crate::tokens::{Actor, TokenHash};

/// Failures are limited per minute.
const WINDOW_MS: u64 = 60_000;

/// The sender of a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Caller {
    pub(super) identity: CallerIdentity,
    pub(super) role: Role,
}

impl Caller {
    /// Where nobody is asked.
    pub(super) const ANYBODY: Self = Self { identity: CallerIdentity::Anonymous, role: Role::Read };
}

/// How the sender of a request is known.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum CallerIdentity {
    /// By the name of an admin token.
    Token(Arc<str>),
    /// By a name of its certificate.
    Certificate(Arc<str>),
    /// By the user that its process belongs to, on this machine.
    User(u32),
    /// Not at all.
    Anonymous,
}

impl CallerIdentity {
    /// Whether only a token shows it: browsers send certificates by themselves, but no tokens.
    pub(super) fn is_token(&self) -> bool {
        matches!(self, Self::Token(_))
    }

    /// The name of a token or a certificate.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Token(name) | Self::Certificate(name) => Some(name),
            Self::User(_) | Self::Anonymous => None,
        }
    }

    /// As the audit trail has it.
    pub(super) fn actor(&self) -> Actor {
        match self {
            Self::Token(name) | Self::Certificate(name) => Actor::admin(name),
            Self::User(uid) => Actor::local_user(*uid),
            Self::Anonymous => Actor::loopback(),
        }
    }
}

/// Why a caller is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum AccessDenied {
    #[error("This request needs an admin token: Authorization: Bearer TOKEN.")]
    Missing,
    #[error("The client certificate names nobody in admin.tls.clients; an admin token would do as well.")]
    UnknownCertificate,
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
    clients: Vec<AdminClient>,
    failures: NetworkLimiter,
    began: Instant,
}

impl Access {
    pub(super) fn new(config: &AdminAccess) -> Self {
        Self {
            anonymous: config.anonymous,
            tokens: config.tokens.clone(),
            clients: config.tls.as_ref().map(|tls| tls.clients.clone()).unwrap_or_default(),
            failures: NetworkLimiter::new(Rate::new(config.max_failures, WINDOW_MS), 32, 64),
            began: Instant::now(),
        }
    }

    /// The sender of a request: by the `Authorization` header, or without one by its connection.
    pub(super) fn caller(&self, headers: &HeaderMap, peer: &AdminPeer, now: Instant) -> Result<Caller, AccessDenied> {
        let token = match bearer_token(headers) {
            Ok(token) => Some(token),
            Err(BearerError::Malformed) => None,
            Err(BearerError::Repeated) => return Err(AccessDenied::Repeated),
            Err(BearerError::Missing) => return self.without_token(peer),
        };
        let client = peer.address();
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
        Ok(Caller { identity: CallerIdentity::Token(name.clone()), role: *role })
    }

    fn without_token(&self, peer: &AdminPeer) -> Result<Caller, AccessDenied> {
        let (identity, refusal) = match peer {
            AdminPeer::Network { names, .. } => {
                // The highest role counts that one of its names gives.
                let known = self.clients.iter().filter(|client| names.iter().any(|name| **name == *client.name));
                if let Some(client) = known.max_by_key(|client| client.role) {
                    return Ok(Caller {
                        identity: CallerIdentity::Certificate(client.name.clone()),
                        role: client.role,
                    });
                }
                let refusal = if names.is_empty() { AccessDenied::Missing } else { AccessDenied::UnknownCertificate };
                (CallerIdentity::Anonymous, refusal)
            }
            AdminPeer::Local { uid } => {
                (uid.map_or(CallerIdentity::Anonymous, CallerIdentity::User), AccessDenied::Missing)
            }
        };
        Ok(Caller { identity, role: self.anonymous.ok_or(refusal)? })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header;

    use super::*;
    use crate::config::{AdminTls, CertificateFiles};

    fn access(anonymous: Option<Role>) -> Access {
        let token =
            |name: &str, role, secret: &str| AdminToken { name: name.into(), role, sha256: TokenHash::of(secret) };
        let tokens = vec![token("watch", Role::Read, "one"), token("ops", Role::Write, "two")];
        let client = |name: &str, role| AdminClient { name: name.into(), role };
        let tls = AdminTls {
            certificate: CertificateFiles { cert: "cert.pem".into(), key: "key.pem".into() },
            client_ca: Some("ca.pem".into()),
            clients: vec![client("probe.example", Role::Read), client("ops.example", Role::Write)],
        };
        Access::new(&AdminAccess { anonymous, tokens, public_metrics: false, max_failures: 3, tls: Some(tls) })
    }

    fn peer(names: &[&str]) -> AdminPeer {
        let names = names.iter().map(ToString::to_string).collect();
        AdminPeer::Network { address: "192.0.2.1".parse().unwrap(), names }
    }

    fn sent(access: &Access, lines: &[&str], now: Instant) -> Result<(String, Role), AccessDenied> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::AUTHORIZATION, line.parse().unwrap());
        }
        let caller = access.caller(&headers, &peer(&[]), now)?;
        Ok((caller.identity.name().unwrap_or("anonymous").to_owned(), caller.role))
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
    fn certificates_and_users_of_this_machine_are_known_without_a_token() {
        let shown = |anonymous, peer: &AdminPeer| access(anonymous).caller(&HeaderMap::new(), peer, Instant::now());
        let certified = |name: &str, role| Ok(Caller { identity: CallerIdentity::Certificate(name.into()), role });
        assert_eq!(shown(None, &peer(&["probe.example"])), certified("probe.example", Role::Read));
        assert_eq!(shown(Some(Role::Read), &peer(&["x", "ops.example"])), certified("ops.example", Role::Write));
        assert_eq!(shown(None, &peer(&["probe.example", "ops.example"])), certified("ops.example", Role::Write));
        assert_eq!(shown(None, &peer(&["probe.example.org"])), Err(AccessDenied::UnknownCertificate));
        assert_eq!(shown(None, &peer(&[])), Err(AccessDenied::Missing));
        let local = AdminPeer::Local { uid: Some(1000) };
        assert_eq!(shown(None, &local), Err(AccessDenied::Missing));
        let user = Caller { identity: CallerIdentity::User(1000), role: Role::Write };
        assert_eq!(shown(Some(Role::Write), &local), Ok(user));
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
