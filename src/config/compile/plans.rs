//! `plans`, `default_plan` and `limits`: how much a token may do, and how clients learn of it.

use std::sync::Arc;

use super::limits::{check_name, named_limits};
use crate::config::units::parse_limit;
use crate::config::{CONCURRENT_CALLS, Field, Limit, LimitSettings, Plan, PlansByName, Section, hint};

/// The plan of a file that defines none, and the default one of a file that defines it.
const STANDARD: &str = "standard";
const STANDARD_LIMITS: [(&str, &str); 2] = [("minute", "60/1m"), ("hour", "1000/1h")];

pub(super) fn limits(field: &Field<'_>) -> LimitSettings {
    let s = field.section();
    let choices = [("x-ratelimit", "x-ratelimit"), ("ietf", "ietf")];
    let headers = |f: &Field<'_>| Some(f.one_or_many().iter().filter_map(|item| item.choice(&choices)).collect());
    let headers: Vec<&str> = s.or("headers", vec!["x-ratelimit"], headers);
    LimitSettings {
        x_ratelimit: headers.contains(&"x-ratelimit"),
        ietf: headers.contains(&"ietf"),
        max_tokens: s.or("max_tokens", 1_000_000, |f| f.number(1_000..=100_000_000)),
    }
}

pub(super) fn plans(file: &Section<'_>) -> PlansByName {
    let Some(field) = file.get("plans") else {
        return PlansByName::from([(Arc::from(STANDARD), Arc::new(standard()))]);
    };
    if field.is_empty_map() {
        field.error("is empty (remove it for the plan `standard` with 60/1m and 1000/1h, or define one)");
    }
    field.names().into_iter().map(|(name, field)| (Arc::from(name), Arc::new(plan(name, &field)))).collect()
}

/// `None` if there is none, which is reported.
pub(super) fn default_plan(file: &Section<'_>, plans: &PlansByName) -> Option<Arc<Plan>> {
    let field = file.get("default_plan");
    if plans.is_empty() {
        return None;
    }
    let names = plans.keys().map(|name| &**name);
    if let Some(field) = field {
        let name = field.text()?;
        let plan = plans.get(name.as_str()).cloned();
        let unknown = || format!("no plan is called {}{}", field.shown(), hint(&name, names));
        return field.accept(plan.ok_or_else(unknown));
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
    let s = field.section();
    let remedy = "for example `limits: { minute: 60/1m }`, or `limits: {}` for none at all";
    Plan {
        name: Arc::from(name),
        limits: s.require("limits", remedy).map(|field| named_limits("a plan", &field)).unwrap_or_default(),
        concurrent_calls: s.optional("concurrent_calls", |f| f.number(CONCURRENT_CALLS)),
        shadow: s.or("shadow", false, Field::flag),
    }
}
