//! What can be done to a token that is there: each deed as a change of its record, the same in both stores.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::audit::Action;
use super::date::Date;
use super::draft::Change;
use super::error::RegistryError;
use super::plans::Plans;
use super::record::{Record, StoredHash};
use super::token::TokenHash;

/// The longest time that an old secret may live on.
pub const MAX_GRACE: Duration = Duration::from_secs(90 * 24 * 3600);
/// Old secrets that a token may have beside its present one; one more, and the oldest ends at once.
pub(super) const MAX_OLD_SECRETS: usize = 3;

/// A deed.
#[derive(Clone)]
pub(super) enum Operation {
    /// Change what it may do, or what it is called.
    Update(Change, Arc<Plans>),
    /// Give it this secret. The present one lives on for a while, and older ones until their own ends; without a grace period, all end.
    Rotate(TokenHash, Duration),
    /// Switch it on or off.
    Switch(bool),
    /// Revoke it.
    Revoke,
}

impl Operation {
    pub(super) fn action(&self) -> Action {
        match self {
            Self::Update(..) => Action::Update,
            Self::Rotate(..) => Action::Rotate,
            Self::Switch(true) => Action::Enable,
            Self::Switch(false) => Action::Disable,
            Self::Revoke => Action::Revoke,
        }
    }

    /// Does it to a record. Secrets that have ended are forgotten on this occasion, which is no change of its own.
    pub(super) fn apply(&self, record: &mut Record, now: SystemTime) -> Result<(), RegistryError> {
        if record.revoked_at.is_some() {
            return match self {
                Self::Revoke => Ok(()),
                Self::Update(..) | Self::Rotate(..) | Self::Switch(_) => Err(RegistryError::Revoked(record.id.clone())),
            };
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
            Self::Switch(on) => record.enabled = *on,
            Self::Revoke => record.revoked_at = Some(Date::new(now)),
        }
        if *record != before {
            record.hashes.retain(|hash| hash.expires_at.is_none_or(|end| end.time() > now));
        }
        Ok(())
    }
}
