//! What can be done to an existing token: each action as a change of its record, the same in both stores.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::audit::Action;
use super::date::Date;
use super::draft::Change;
use super::error::{RegistryError, Result};
use super::plans::Plans;
use super::record::{Record, StoredHash};
use super::token::TokenHash;

/// The longest time that an old secret may live on.
pub const MAX_GRACE: Duration = Duration::from_secs(90 * 24 * 3600);
/// Old secrets that a token may have beside its present one; one more, and the oldest ends at once.
pub(super) const MAX_OLD_SECRETS: usize = 3;

/// An action on an existing token.
#[derive(Clone)]
pub enum Operation {
    /// Change what the token may do, or what it is called. The plans are those of the configuration.
    Update(Change, Arc<Plans>),
    /// Give it this secret. The current one keeps working for this grace period, and older ones until their own ends; with a
    /// grace period of zero, all end.
    Rotate(TokenHash, Duration),
    /// Switch it on.
    Enable,
    /// Switch it off.
    Disable,
    /// Revoke it.
    Revoke,
}

impl Operation {
    pub(super) fn action(&self) -> Action {
        match self {
            Self::Update(..) => Action::Update,
            Self::Rotate(..) => Action::Rotate,
            Self::Enable => Action::Enable,
            Self::Disable => Action::Disable,
            Self::Revoke => Action::Revoke,
        }
    }

    /// Changes a record. Secrets that have ended are forgotten on this occasion, which is no change of its own.
    pub(super) fn apply(&self, record: &mut Record, now: SystemTime) -> Result<()> {
        if record.revoked_at.is_some() {
            let is_done = matches!(self, Self::Revoke);
            return if is_done { Ok(()) } else { Err(RegistryError::Revoked(record.id.clone())) };
        }
        let before = record.clone();
        match self {
            Self::Update(change, plans) => change.apply(record, plans, now).map_err(RegistryError::Invalid)?,
            Self::Rotate(hash, grace) => {
                if grace.is_zero() {
                    record.hashes.clear();
                }
                if let Some(current) = record.hashes.first_mut() {
                    // Rounded up: a grace period is at least as long as it was said to be.
                    current.expires_at = Some(Date::new(now + *grace + Duration::from_millis(999)));
                }
                record.hashes.insert(0, StoredHash { sha256: *hash, expires_at: None });
                record.hashes.truncate(1 + MAX_OLD_SECRETS);
            }
            Self::Enable => record.enabled = true,
            Self::Disable => record.enabled = false,
            Self::Revoke => record.revoked_at = Some(Date::new(now)),
        }
        if *record != before {
            record.hashes.retain(|hash| hash.expires_at.is_none_or(|end| end.time() > now));
        }
        Ok(())
    }
}
