//! `plans`, `default_plan` and `limits`: how much a token may, and how it is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::limits::{check_name, named_limits};
use crate::config::model::Limits;
use crate::config::place::hint;
use crate::config::plan::{CONCURRENT_CALLS, Limit, Plan};
use crate::config::reader::{Field, Section};
use crate::config::units::parse_limit;

/// The plan of a file that defines none, and the default one of a file that defines it.
const STANDARD: &str = "standard";
const STANDARD_LIMITS: [(&str, &str); 2] = [("minute", "60/1m"), ("hour", "1000/1h")];

pub(super) fn limits(field: &Field<'_>) -> Limits {
    let s = field.section(&["headers", "max_tokens"]);
    let max_tokens = s.or("max_tokens", 1_000_000, |f| f.number(1_000..=100_000_000));
    let mut limits = Limits { x_ratelimit: false, ietf: false, max_tokens };
    match s.get("headers") {
        None => limits.x_ratelimit = true,
        Some(headers) => {
            for header in headers.one_or_many() {
                match header.choice(&[("x-ratelimit", true), ("ietf", false)]) {
                    Some(true) => limits.x_ratelimit = true,
                    Some(false) => limits.ietf = true,
                    None => {}
                }
            }
        }
    }
    limits
}

pub(super) type PlansByName = BTreeMap<Arc<str>, Arc<Plan>>;

/// All plans, and the default one. `None` when there is no default plan, which was complained about.
pub(super) fn plans(file: &Section<'_>) -> Option<(PlansByName, Arc<Plan>)> {
    let mut plans = BTreeMap::new();
    match file.get("plans") {
        None => {
            plans.insert(Arc::from(STANDARD), Arc::new(standard()));
        }
        Some(field) => {
            let named = field.names();
            if named.is_empty() && field.is_map() {
                field.error("is empty (remove it for the plan `standard` with 60/1m and 1000/1h, or define one)");
            }
            for (name, field) in named {
                let plan = plan(name, &field);
                plans.insert(plan.name.clone(), Arc::new(plan));
            }
        }
    }
    let default = default_plan(file, &plans)?;
    Some((plans, default))
}

fn default_plan(file: &Section<'_>, plans: &BTreeMap<Arc<str>, Arc<Plan>>) -> Option<Arc<Plan>> {
    if plans.is_empty() {
        return None;
    }
    let names = plans.keys().map(|name| &**name);
    if let Some(field) = file.get("default_plan") {
        let name = field.text()?;
        let plan = plans.get(name.as_str());
        if plan.is_none() {
            field.error(format!("no plan is called {}{}", field.shown(), hint(&name, names)));
        }
        return plan.cloned();
    }
    let only = plans.values().next().filter(|_| plans.len() == 1);
    let default = plans.get(STANDARD).or(only).cloned();
    if default.is_none() {
        let names: Vec<&str> = names.collect();
        file.require("default_plan", &format!("no plan is called standard: name one of {}", names.join(", ")));
    }
    default
}

fn standard() -> Plan {
    let limits = STANDARD_LIMITS.iter().filter_map(|(name, text)| {
        let (count, window_ms) = parse_limit(text).ok()?;
        Some(Limit { name: Arc::from(*name), count, window_ms })
    });
    Plan { name: Arc::from(STANDARD), limits: limits.collect(), ..Plan::default() }
}

fn plan(name: &str, field: &Field<'_>) -> Plan {
    check_name(name, field);
    let s = field.section(&["limits", "concurrent_calls", "shadow"]);
    let remedy = "for example `limits: { minute: 60/1m }`, or `limits: {}` for none at all";
    let limits = s.require("limits", remedy).map_or_else(Vec::new, |field| named_limits("a plan", &field));
    Plan {
        name: Arc::from(name),
        limits: limits.into_iter().map(|(limit, _)| limit).collect(),
        concurrent_calls: s.or("concurrent_calls", None, |f| f.number(CONCURRENT_CALLS).map(Some)),
        shadow: s.or("shadow", false, Field::flag),
    }
}
