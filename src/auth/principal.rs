//! What authentication knows of a request's sender.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue};

use super::refusal::Refused;
use super::served_token::ServedToken;
use crate::config::Plan;
use crate::tokens::{PlanChoice, Plans, Record, TokenHash, covers};

/// What tells an upstream who a request is. A gateway removes the client's own copies of these.
pub const IDENTITY_HEADERS: [HeaderName; 4] = [
    HeaderName::from_static("x-callgate-token-id"),
    HeaderName::from_static("x-callgate-account"),
    HeaderName::from_static("x-callgate-permissions"),
    HeaderName::from_static("x-callgate-plan"),
];

/// Confirmations are noted in steps of this: a busy token must not make every worker write to one cache line.
const CONFIRM_STEP_MS: u64 = 100;

/// An authenticated token: made once per version of its record, shared by all its requests.
#[derive(Debug)]
pub struct Principal {
    /// The token's public id.
    pub id: Arc<str>,
    /// The version of the record that this was made from; the limiter's script compares it.
    pub version: u64,
    /// The token's name, for logs.
    pub name: Arc<str>,
    /// The account that owns the token.
    pub account: Arc<str>,
    /// The limits that hold for the token, its own overrides applied.
    pub plan: Arc<Plan>,
    /// The plans that it is one of, by their id.
    plans: u64,
    /// What the record says of it; `None`: nothing.
    choice: Option<Arc<PlanChoice>>,
    /// Which of the record's hashes the presented token has.
    pub(super) hash: TokenHash,
    permissions: Arc<[Box<str>]>,
    pub(super) expires_at: Option<SystemTime>,
    /// What tells an upstream who this is: [`IDENTITY_HEADERS`] with their values.
    pub identity_headers: [(HeaderName, HeaderValue); 4],
    /// When the store last confirmed this version, in milliseconds since 1970.
    confirmed_ms: AtomicU64,
    /// The epoch of the last confirmation; 0 if there was none.
    confirmed_at: AtomicU64,
}

impl Principal {
    /// Builds a principal from a token that is neither revoked nor disabled. `hash` is the one that the presented token has.
    pub(super) fn new(token: &ServedToken, hash: TokenHash, version: u64, plans: &Plans, now: SystemTime) -> Self {
        let plan = plans.resolve_choice(&token.id, token.choice.as_deref().unwrap_or(&PlanChoice::default()));
        // Permissions are joined by spaces as an OAuth scope is (RFC 6749 section 3.3).
        let texts = [&*token.id, &token.account, &token.permissions.join(" "), &plan.name].map(header_value);
        let mut texts = texts.into_iter();
        let identity_headers = IDENTITY_HEADERS.map(|name| (name, texts.next().expect("as many values as names")));
        Self {
            id: token.id.clone(),
            version,
            name: token.name.clone(),
            account: token.account.clone(),
            plan,
            plans: plans.id(),
            choice: token.choice.clone(),
            hash,
            permissions: token.permissions.clone(),
            expires_at: token.expires_at,
            identity_headers,
            confirmed_ms: AtomicU64::new(unix_ms(now)),
            confirmed_at: AtomicU64::new(0),
        }
    }

    /// The id of the plans that its own is one of.
    pub(super) fn plans(&self) -> u64 {
        self.plans
    }

    /// The same token under the plans of another configuration.
    pub(super) fn under(&self, plans: &Plans) -> Self {
        let plan = plans.resolve_choice(&self.id, self.choice.as_deref().unwrap_or(&PlanChoice::default()));
        let mut identity_headers = self.identity_headers.clone();
        identity_headers[3].1 = header_value(&plan.name);
        let copy = |time: &AtomicU64| AtomicU64::new(time.load(Ordering::Relaxed));
        Self {
            id: self.id.clone(),
            version: self.version,
            name: self.name.clone(),
            account: self.account.clone(),
            plan,
            plans: plans.id(),
            choice: self.choice.clone(),
            hash: self.hash,
            permissions: self.permissions.clone(),
            expires_at: self.expires_at,
            identity_headers,
            confirmed_ms: copy(&self.confirmed_ms),
            confirmed_at: copy(&self.confirmed_at),
        }
    }

    /// Whether the token holds a permission, by name or by `calls:*` or `*`.
    pub fn may(&self, permission: &str) -> bool {
        self.permissions.iter().any(|held| covers(held, permission))
    }

    /// Whether the token has ended.
    pub(crate) fn is_expired(&self, now: SystemTime) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// Bytes that it takes in memory, about; a plan of its own included.
    pub(super) fn bytes(&self) -> usize {
        let texts = self.id.len() + self.name.len() + self.account.len();
        let permissions: usize = self.permissions.iter().map(|permission| permission.len() + 32).sum();
        let headers: usize = self.identity_headers.iter().map(|(_, value)| value.len() + 64).sum();
        let limits = self.plan.limits.len() * 64;
        size_of::<Self>() + texts + permissions + headers + limits
    }

    /// Notes that the store still has this version.
    pub(super) fn confirm(&self, now: SystemTime) {
        let now = unix_ms(now);
        if self.confirmed_ms.load(Ordering::Relaxed).abs_diff(now) >= CONFIRM_STEP_MS {
            self.confirmed_ms.store(now, Ordering::Relaxed);
        }
    }

    /// Notes that the store, asked in this epoch, still has this version.
    pub(super) fn confirm_at(&self, epoch: u64) {
        if self.confirmed_at.load(Ordering::Relaxed) < epoch {
            self.confirmed_at.fetch_max(epoch, Ordering::Relaxed);
        }
    }

    /// The latest epoch of a confirmation.
    pub(super) fn confirmed_at(&self) -> u64 {
        self.confirmed_at.load(Ordering::Relaxed)
    }

    /// Whether the store confirmed this version within `ttl` of `now`. A confirmation from the future, after a step of the clock,
    /// counts for no longer than one from the past.
    pub(super) fn is_fresh(&self, now: SystemTime, ttl: Duration) -> bool {
        let age = self.confirmed_ms.load(Ordering::Relaxed).abs_diff(unix_ms(now));
        u128::from(age) <= ttl.as_millis()
    }
}

/// All values were checked when the record was written; one that was written by other means and fits no header travels empty.
fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(const { HeaderValue::from_static("") })
}

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The principal of a token with this hash, by this version of its record. The caller checks whether it has expired.
pub(super) fn principal_of(
    record: &Record,
    version: u64,
    hash: TokenHash,
    plans: &Plans,
    now: SystemTime,
) -> Result<Arc<Principal>, Refused> {
    let token = ServedToken::of(record, record.holding(hash).ok_or(Refused::UNKNOWN)?);
    token.usable()?;
    Ok(Arc::new(Principal::new(&token, hash, version, plans, now)))
}

#[cfg(test)]
impl Principal {
    /// The principal of a record's first hash.
    pub(super) fn of(record: &Record, version: u64, plans: &Plans, now: SystemTime) -> Self {
        let hash = &record.hashes[0];
        Self::new(&ServedToken::of(record, hash), hash.sha256, version, plans, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::Date;
    use crate::tokens::{record_of, test_plans};

    fn at(ms: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(ms)
    }

    fn principal(record: &Record) -> Principal {
        Principal::of(record, 7, &test_plans(), at(10_000))
    }

    #[test]
    fn upstreams_get_the_identity_headers() {
        let principal = principal(&record_of("secret-token"));
        let headers: Vec<String> = principal
            .identity_headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        assert_eq!(
            headers,
            [
                "x-callgate-token-id: abc",
                "x-callgate-account: acme",
                "x-callgate-permissions: calls:read calls:write",
                "x-callgate-plan: standard"
            ]
        );
        assert!(principal.may("calls:read") && !principal.may("calls:stream"));
    }

    #[test]
    fn the_earlier_end_counts() {
        let mut record = record_of("secret-token");
        assert_eq!(principal(&record).expires_at, None);
        record.expires_at = Some(Date::new(at(50_000)));
        record.hashes[0].expires_at = Some(Date::new(at(20_000)));
        let principal = principal(&record);
        assert_eq!(principal.expires_at, Some(at(20_000)));
        assert!(principal.is_expired(at(20_000)) && !principal.is_expired(at(19_999)));
    }

    #[test]
    fn a_confirmation_lasts_for_the_ttl_in_both_directions() {
        let principal = principal(&record_of("secret-token"));
        let ttl = Duration::from_secs(5);
        assert!(principal.is_fresh(at(15_000), ttl) && !principal.is_fresh(at(15_001), ttl));
        assert!(principal.is_fresh(at(5_000), ttl) && !principal.is_fresh(at(4_999), ttl));
        principal.confirm(at(13_000));
        assert!(principal.is_fresh(at(18_000), ttl) && !principal.is_fresh(at(18_001), ttl));
        principal.confirm(at(13_050));
        assert!(!principal.is_fresh(at(18_001), ttl), "steps below 100 ms are not written");
    }
}
