//! `plans`, `default_plan` and `limits`, of a route too: how much a token may do, and how clients learn of it.

use std::num::NonZeroU32;
use std::sync::Arc;

use crate::config::units::{format_duration, parse_limit};
use crate::config::{
    CONCURRENT_CALLS, Field, IN_FLIGHT, Limit, LimitSettings, Plan, PlansByName, RouteLimits, Section, hint, is_name,
    quoted,
};

/// Every request is checked against all limits of its plan and its route.
const MAX_LIMITS: usize = 8;
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
        in_flight: s.optional("in_flight", |f| f.number(IN_FLIGHT)),
        shadow: s.or("shadow", false, Field::flag),
    }
}

/// The limits of `owner` that can be read, shortest window first.
fn named_limits(owner: &str, field: &Field<'_>) -> Box<[Limit]> {
    limits_and_fields(owner, field).into_iter().map(|(limit, _)| limit).collect()
}

fn limits_and_fields<'a>(owner: &str, field: &Field<'a>) -> Vec<(Limit, Field<'a>)> {
    let mut limits = Vec::new();
    let named = field.names();
    if named.len() > MAX_LIMITS {
        field.error(format!("{owner} has at most {MAX_LIMITS} limits, not {}", named.len()));
    }
    for (name, field) in named {
        check_name(name, &field);
        if let Some((count, window_ms)) = limit(&field) {
            limits.push((Limit { name: Arc::from(name), count, window_ms }, field));
        }
    }
    limits.sort_by_key(|(limit, _)| limit.window_ms);
    compare(&limits);
    limits
}

/// Limits that a route has of its own. They are reported beside those of plans, so no plan may use their names.
pub(super) fn route_limits(route: &str, field: &Field<'_>, plans: Option<&PlansByName>) -> Option<RouteLimits> {
    let limits = limits_and_fields("a route", field);
    if field.is_empty_map() {
        field.error("is empty (name at least one, for example `burst: 10/1m`, or remove the key)");
    }
    for (limit, field) in &limits {
        let has_name = |plan: &&Arc<Plan>| plan.limits.iter().any(|other| other.name == limit.name);
        if let Some(plan) = plans.and_then(|plans| plans.values().find(has_name)) {
            field.error(format!(
                "the plan \"{}\" has a limit of this name, too, and clients could not tell them apart (choose another name)",
                plan.name
            ));
        }
    }
    let limits: Box<[Limit]> = limits.into_iter().map(|(limit, _)| limit).collect();
    (!limits.is_empty()).then(|| RouteLimits { route: route.into(), limits })
}

fn limit(field: &Field<'_>) -> Option<(u32, NonZeroU32)> {
    let text = field.word()?;
    let limit = parse_limit(&text).map_err(|message| format!("{message}, not {}", field.shown()));
    let (count, window) = field.accept(limit)?;
    if count == 0 {
        field.warn("admits no request at all (a count of 0)");
    }
    Some((count, window))
}

/// Complains about limits, sorted by window, that can't all have an effect.
fn compare(limits: &[(Limit, Field<'_>)]) {
    for (index, (long, field)) in limits.iter().enumerate() {
        for (short, other) in &limits[..index] {
            if short.window_ms == long.window_ms {
                field.error(format!("has the same window as {} (keep one of the two)", other.path));
            } else if long.count < short.count {
                field.error(format!(
                    "admits {}, fewer than \"{}\" ({}), which could never be reached (raise this, or lower that)",
                    per_window(long),
                    short.name,
                    per_window(short),
                ));
            } else if short.count > 0 && u64::from(long.count) >= most_within(short, long) {
                field.warn(format!(
                    "can never be reached: \"{}\" admits at most {} in {} (lower this, or remove it)",
                    short.name,
                    most_within(short, long),
                    format_duration(long.window()),
                ));
            }
        }
    }
}

fn per_window(limit: &Limit) -> String {
    format!("{} in {}", limit.count, format_duration(limit.window()))
}

/// The most that `short` admits in any window as long as `long`'s.
fn most_within(short: &Limit, long: &Limit) -> u64 {
    u64::from(short.count) * u64::from(long.window_ms.get().div_ceil(short.window_ms.get()))
}

/// Complains about a route whose requests cost more than its own limits or some plan's ever admit at once.
pub(super) fn check_cost(cost: u32, field: &Field<'_>, own: Option<&RouteLimits>, plans: &PlansByName) {
    // A limit of 0, which admits nothing, has its own warning.
    let own = own.map(|own| (&own.limits, "the route's own limits".to_owned()));
    let plans = plans.values().map(|plan| (&plan.limits, format!("the plan \"{}\"", plan.name)));
    for (limits, owner) in own.into_iter().chain(plans) {
        if let Some(limit) = limits.iter().find(|limit| (1..cost).contains(&limit.count)) {
            let (name, limit) = (&limit.name, per_window(limit));
            field.error(format!(
                "a request that costs {cost} can never pass \"{name}\" of {owner} ({limit}; lower this, or raise that)"
            ));
        }
    }
}

/// Names of plans and limits are in headers, metrics and token records.
fn check_name(name: &str, field: &Field<'_>) {
    let set = "A-Z a-z 0-9 _ -";
    if !is_name(name, 32, set) {
        field.error(format!("a name must be 1 to 32 characters out of {set}, not {}", quoted(name)));
    }
}
