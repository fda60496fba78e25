//! A token as the API and the commands show it: all but its secret and its hashes.

use std::time::SystemTime;

use serde::Serialize;

use super::date::Date;
use super::outcome::Found;
use super::record::{Record, StoredRecord, Usage, limit_map};
use crate::config::Limit;

#[derive(Debug, Serialize)]
pub(crate) struct TokenView<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) account: &'a str,
    pub(crate) permissions: &'a [String],
    /// `None`: the default plan.
    pub(crate) plan: Option<&'a str>,
    #[serde(serialize_with = "limit_map::serialize")]
    pub(crate) limits: &'a [Limit],
    pub(crate) concurrent_calls: Option<u32>,
    pub(crate) in_flight: Option<u32>,
    pub(crate) created_at: Option<Date>,
    pub(crate) expires_at: Option<Date>,
    pub(crate) enabled: bool,
    pub(crate) revoked_at: Option<Date>,
    pub(crate) state: &'static str,
    /// When each old secret that still works ends.
    pub(crate) old_secrets_until: Vec<Date>,
    pub(crate) version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<UsageView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) effective: Option<EffectiveLimits<'a>>,
}

/// How much a token is used, about a minute late.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(crate) struct UsageView {
    pub(crate) last_used_at: Option<Date>,
    pub(crate) requests: u64,
}

/// What applies to a token by its plan and its own limits.
#[derive(Debug, Serialize)]
pub(crate) struct EffectiveLimits<'a> {
    pub(crate) plan: &'a str,
    #[serde(serialize_with = "limit_map::serialize")]
    pub(crate) limits: &'a [Limit],
    pub(crate) concurrent_calls: Option<u32>,
    pub(crate) in_flight: Option<u32>,
}

impl<'a> TokenView<'a> {
    pub(crate) fn new(record: &'a Record, version: u64, now: SystemTime) -> Self {
        let ends = record.hashes.iter().filter_map(|hash| hash.expires_at);
        Self {
            id: &record.id,
            name: &record.name,
            account: &record.account,
            permissions: &record.permissions,
            plan: record.plan.as_deref(),
            limits: &record.limits,
            concurrent_calls: record.concurrent_calls,
            in_flight: record.in_flight,
            created_at: record.created_at,
            expires_at: record.expires_at,
            enabled: record.enabled,
            revoked_at: record.revoked_at,
            state: record.state(now).as_str(),
            old_secrets_until: ends.filter(|end| end.time() > now).collect(),
            version,
            usage: None,
            effective: None,
        }
    }

    pub(crate) fn of_listed(listed: &'a StoredRecord, now: SystemTime) -> Self {
        Self { usage: Some(listed.usage.into()), ..Self::new(&listed.record, listed.version, now) }
    }

    pub(crate) fn of_found(found: &'a Found, now: SystemTime) -> Self {
        let plan = &*found.plan;
        let effective = EffectiveLimits {
            plan: &plan.name,
            limits: &plan.limits,
            concurrent_calls: plan.concurrent_calls,
            in_flight: plan.in_flight,
        };
        let (usage, effective) = (Some(found.usage.into()), Some(effective));
        Self { usage, effective, ..Self::new(&found.record, found.version, now) }
    }
}

impl From<Usage> for UsageView {
    fn from(usage: Usage) -> Self {
        Self { last_used_at: usage.last_used, requests: usage.requests }
    }
}
