//! Access to the admin listener.

use std::sync::Arc;

use crate::hash::TokenHash;

/// Access to the admin listener. Liveness and readiness need none.
#[derive(Debug, Clone)]
pub struct AdminAccess {
    /// What requests without a token may do; `None`: nothing. On an address that others can reach it is always `None`.
    pub anonymous: Option<Role>,
    /// Valid tokens.
    pub tokens: Vec<AdminToken>,
    /// Whether the metrics need no token.
    pub public_metrics: bool,
    /// Wrong tokens from one address in a minute.
    pub max_failures: u32,
}

/// A token of the admin listener.
#[derive(Debug, Clone)]
pub struct AdminToken {
    /// Its name in the audit trail.
    pub name: Arc<str>,
    /// What it may do.
    pub role: Role,
    /// The SHA-256 of its text.
    pub sha256: TokenHash,
}

/// What a request may do on the admin listener; a later role includes the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look.
    Read,
    /// Change.
    Write,
}

impl Role {
    /// Every role and its name in the configuration.
    pub const NAMES: [(&'static str, Role); 2] = [("read", Role::Read), ("write", Role::Write)];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}
