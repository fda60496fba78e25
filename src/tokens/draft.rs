//! What is asked for, checked: a new token, or a change of one.

use std::ops::RangeInclusive;
use std::time::SystemTime;

use serde::Serialize;

use super::date::Date;
use super::error::Fault;
use super::limit_text::parse_limit;
use super::permission::is_permission;
use super::plans::{self, Plans};
use super::record::{self, MAX_PERMISSIONS, Others, Record, StoredHash};
use super::token::{self, TokenHash};
use crate::config::{CONCURRENT_CALLS, IN_FLIGHT, Limit, hint};

/// A token that is asked for, not yet checked.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Draft {
    /// A name for people.
    pub name: String,
    /// The account that will own it.
    pub account: String,
    /// What it may do.
    pub permissions: Vec<String>,
    /// Its plan; `None`: the default one.
    pub plan: Option<String>,
    /// Limits that replace or extend those of its plan, as name and `120/1m`.
    pub limits: Vec<(String, String)>,
    /// Calls that it may have open at one time; `None`: as many as its plan says.
    pub concurrent_calls: Option<u32>,
    /// Requests that it may have in flight at one time; `None`: as many as its plan says. Left out of what is compared of repeated
    /// requests unless it is set, as older versions don't know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u32>,
    /// When it is to end.
    #[serde(serialize_with = "as_date")]
    pub expires_at: Option<SystemTime>,
}

/// A change that is asked for, not yet checked. `None` leaves a field as it is; an inner `None` takes its value away.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// A name for people.
    pub name: Option<String>,
    /// What it may do: all of it.
    pub permissions: Option<Vec<String>>,
    /// Its plan.
    pub plan: Option<Option<String>>,
    /// Limits that replace or extend those of its plan: all of them.
    pub limits: Option<Vec<(String, String)>>,
    /// Calls that it may have open at one time.
    pub concurrent_calls: Option<Option<u32>>,
    /// Requests that it may have in flight at one time.
    pub in_flight: Option<Option<u32>>,
    /// When it is to end.
    pub expires_at: Option<Option<SystemTime>>,
}

impl Draft {
    /// Checks everything and makes the record of the token with this id and hash.
    ///
    /// # Errors
    /// Each thing that is wrong.
    pub fn into_record(
        self,
        plans: &Plans,
        id: String,
        hash: TokenHash,
        now: SystemTime,
    ) -> Result<Record, Vec<Fault>> {
        let mut check = Check { plans, now, faults: Vec::new() };
        check.name(&self.name);
        if let Err(why) = record::check_account(&self.account) {
            check.fault("account", format!("account {why}"));
        }
        if token::id_inside(&id).is_some() {
            check.fault("id", "id must be a token's id alone, not its text");
        } else if !token::is_id(&id) {
            check.fault("id", "id must be 1 to 64 letters, digits, \".\", \"_\" and \"-\"");
        }
        check.permissions(&self.permissions);
        let limits = check.limits(&self.limits);
        check.plan(self.plan.as_deref(), &limits);
        check.concurrent_calls(self.concurrent_calls);
        check.in_flight(self.in_flight);
        check.end(self.expires_at);
        check.done()?;
        Ok(Record {
            id,
            name: self.name,
            account: self.account,
            permissions: self.permissions,
            plan: self.plan,
            limits,
            concurrent_calls: self.concurrent_calls,
            in_flight: self.in_flight,
            hashes: vec![StoredHash { sha256: hash, expires_at: None }],
            created_at: Some(Date::new(now)),
            expires_at: self.expires_at.map(Date::new),
            enabled: true,
            revoked_at: None,
            request: None,
            others: Others::default(),
        })
    }
}

impl Change {
    /// Checks what is changed, and changes it. What stays is not checked again: a plan of yesterday is no obstacle to a new name.
    pub(super) fn apply(&self, record: &mut Record, plans: &Plans, now: SystemTime) -> Result<(), Vec<Fault>> {
        let mut check = Check { plans, now, faults: Vec::new() };
        if let Some(name) = &self.name {
            check.name(name);
            record.name.clone_from(name);
        }
        if let Some(permissions) = &self.permissions {
            check.permissions(permissions);
            record.permissions.clone_from(permissions);
        }
        if let Some(plan) = &self.plan {
            record.plan.clone_from(plan);
        }
        if let Some(limits) = &self.limits {
            record.limits = check.limits(limits);
        }
        if self.plan.is_some() || self.limits.is_some() {
            check.plan(record.plan.as_deref(), &record.limits);
        }
        if let Some(calls) = self.concurrent_calls {
            check.concurrent_calls(calls);
            record.concurrent_calls = calls;
        }
        if let Some(requests) = self.in_flight {
            check.in_flight(requests);
            record.in_flight = requests;
        }
        if let Some(end) = self.expires_at {
            let same = end.map(Date::new) == record.expires_at;
            check.end(end.filter(|_| !same));
            record.expires_at = end.map(Date::new);
        }
        check.done()
    }
}

/// Collects what is wrong.
struct Check<'a> {
    plans: &'a Plans,
    now: SystemTime,
    faults: Vec<Fault>,
}

impl Check<'_> {
    fn fault(&mut self, field: &'static str, message: impl Into<String>) {
        self.faults.push(Fault { field, message: message.into() });
    }

    fn done(self) -> Result<(), Vec<Fault>> {
        if self.faults.is_empty() { Ok(()) } else { Err(self.faults) }
    }

    fn name(&mut self, name: &str) {
        if let Err(why) = record::check_name(name) {
            self.fault("name", format!("name {why}"));
        }
    }

    fn permissions(&mut self, permissions: &[String]) {
        if permissions.len() > MAX_PERMISSIONS {
            self.fault("permissions", format!("at most {MAX_PERMISSIONS} permissions can be held"));
        }
        for strange in permissions.iter().filter(|permission| !is_permission(permission)) {
            let message = format!("{} is not a permission such as calls:read or calls:*", quoted(strange));
            self.fault("permissions", message);
        }
    }

    /// In the order that a store gives them back in.
    fn limits(&mut self, texts: &[(String, String)]) -> Vec<Limit> {
        let mut limits = Vec::new();
        for (name, text) in texts {
            match parse_limit(name, text) {
                Ok(limit) => limits.push(limit),
                Err(why) => self.fault("limits", format!("limit {}={}: {why}", shortened(name), shortened(text))),
            }
        }
        limits.sort_by(|a, b| a.name.cmp(&b.name));
        limits
    }

    fn plan(&mut self, name: Option<&str>, limits: &[Limit]) {
        let Some(plan) = self.plans.get(name) else {
            let name = name.unwrap_or_default();
            let known = hint(name, self.plans.names());
            return self.fault("plan", format!("no plan is called {}{known}", quoted(name)));
        };
        if let Err(why) = plans::check_overrides(plan, limits) {
            self.fault("limits", format!("limit {why}"));
        }
    }

    fn concurrent_calls(&mut self, calls: Option<u32>) {
        self.number("concurrent_calls", "concurrent calls", CONCURRENT_CALLS, calls);
    }

    fn in_flight(&mut self, requests: Option<u32>) {
        self.number("in_flight", "requests in flight", IN_FLIGHT, requests);
    }

    fn number(&mut self, field: &'static str, what: &str, range: RangeInclusive<u32>, number: Option<u32>) {
        if number.is_some_and(|number| !range.contains(&number)) {
            let (least, most) = range.into_inner();
            self.fault(field, format!("the number of {what} must be from {least} to {most}"));
        }
    }

    fn end(&mut self, end: Option<SystemTime>) {
        if end.is_some_and(|end| Date::new(end).time() <= self.now) {
            self.fault("expires_at", "the end must lie in the future");
        }
    }
}

/// A text as a message may repeat it: escaped, in quotes, and not for ever.
fn quoted(text: &str) -> String {
    format!("{:?}", shortened(text))
}

/// The first 80 characters of a text.
pub(crate) fn shortened(text: &str) -> String {
    const MAX_CHARS: usize = 80;
    if text.chars().count() <= MAX_CHARS {
        text.to_owned()
    } else {
        text.chars().take(MAX_CHARS).chain(['…']).collect()
    }
}

fn as_date<S: serde::Serializer>(end: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    end.map(Date::new).serialize(serializer)
}
