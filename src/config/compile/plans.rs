//! `plans`, `default_plan` and `limits`: how much a token may, and how it is told.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::config::model::Limits;
use crate::config::place::{hint, shown};
use crate::config::plan::{CONCURRENT_CALLS, Limit, Plan};
use crate::config::reader::{Field, Section};
use crate::config::units::{parse_limit, say_duration};

/// The plan of a file that defines none, and the default one of a file that defines it.
const STANDARD: &str = "standard";
const STANDARD_LIMITS: [(&str, &str); 2] = [("minute", "60/1m"), ("hour", "1000/1h")];
/// Every limit of a plan is decided with every request.
const MAX_LIMITS: usize = 8;

pub(super) fn limits(field: &Field<'_>) -> Limits {
    let s = field.section(&["headers"]);
    let mut limits = Limits { x_ratelimit: false, ietf: false };
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
    let mut limits = Vec::new();
    let remedy = "for example `limits: { minute: 60/1m }`, or `limits: {}` for none at all";
    if let Some(field) = s.require("limits", remedy) {
        let named = field.names();
        if named.len() > MAX_LIMITS {
            field.error(format!("a plan has at most {MAX_LIMITS} limits, not {}", named.len()));
        }
        for (name, field) in named {
            check_name(name, &field);
            if let Some((count, window_ms)) = limit(&field) {
                limits.push((Limit { name: Arc::from(name), count, window_ms }, field));
            }
        }
    }
    limits.sort_by_key(|(limit, _)| limit.window_ms);
    compare(&limits);
    Plan {
        name: Arc::from(name),
        limits: limits.into_iter().map(|(limit, _)| limit).collect(),
        concurrent_calls: s.or("concurrent_calls", None, |f| f.number(CONCURRENT_CALLS).map(Some)),
        shadow: s.or("shadow", false, Field::flag),
    }
}

fn limit(field: &Field<'_>) -> Option<(u32, NonZeroU32)> {
    let text = field.word()?;
    match parse_limit(&text) {
        Ok((count, window)) => {
            if count == 0 {
                field.warn("admits no request at all (a count of 0)");
            }
            Some((count, window))
        }
        Err(message) => {
            field.error(format!("{message}, not {}", field.shown()));
            None
        }
    }
}

/// Complains about limits, sorted by window, that can't all mean something.
fn compare(limits: &[(Limit, Field<'_>)]) {
    for (index, (long, field)) in limits.iter().enumerate() {
        for (short, other) in &limits[..index] {
            if short.window_ms == long.window_ms {
                field.error(format!("has the same window as {} (keep one of the two)", other.path()));
            } else if long.count < short.count {
                field.error(format!(
                    "admits {} in {}, fewer than \"{}\" admits in {} ({}): that one could never be reached (raise this, lower that)",
                    long.count, say_duration(long.window()), short.name, say_duration(short.window()), short.count,
                ));
            } else if short.count > 0 && u64::from(long.count) >= most_within(short, long) {
                field.warn(format!(
                    "can never be reached: \"{}\" admits at most {} in {} (lower this, or remove it)",
                    short.name,
                    most_within(short, long),
                    say_duration(long.window()),
                ));
            }
        }
    }
}

/// The most that `short` admits in any window as long as `long`'s.
fn most_within(short: &Limit, long: &Limit) -> u64 {
    u64::from(short.count) * u64::from(long.window_ms.get().div_ceil(short.window_ms.get()))
}

/// Complains about a route whose requests cost more than some plan ever admits at once.
pub(super) fn check_cost(cost: u32, field: &Field<'_>, plans: &PlansByName) {
    for plan in plans.values() {
        // A limit of 0 was warned about; it admits nothing, whatever that costs.
        if let Some(limit) = plan.limits.iter().find(|limit| (1..cost).contains(&limit.count)) {
            field.error(format!(
                "a request that costs {cost} can never pass the limit \"{}\" of the plan \"{}\" ({} in {}): lower this, raise that",
                limit.name,
                plan.name,
                limit.count,
                say_duration(limit.window()),
            ));
        }
    }
}

/// Names of plans and limits stand in headers, metrics and token records.
fn check_name(name: &str, field: &Field<'_>) {
    let good = (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    if !good {
        field.error(format!("a name must be 1 to 32 characters out of A-Z a-z 0-9 _ -, not {}", shown(name)));
    }
}
