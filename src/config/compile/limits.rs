//! Limits by their names: of a plan, or of a route beside it.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::plans::PlansByName;
use crate::config::place::shown;
use crate::config::plan::{Limit, Plan, RouteLimits};
use crate::config::reader::Field;
use crate::config::units::{parse_limit, say_duration};

/// Every limit of a plan or a route is decided with every request.
const MAX_LIMITS: usize = 8;

/// The sound ones of `whose` limits, shortest window first, with where they stand.
pub(super) fn named_limits<'a>(whose: &str, field: &Field<'a>) -> Vec<(Limit, Field<'a>)> {
    let mut limits = Vec::new();
    let named = field.names();
    if named.len() > MAX_LIMITS {
        field.error(format!("{whose} has at most {MAX_LIMITS} limits, not {}", named.len()));
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

/// Limits that a route has of its own. Their names stand beside those of plans, so no plan may have them too.
pub(super) fn route_limits(route: &str, field: &Field<'_>, plans: Option<&PlansByName>) -> Option<RouteLimits> {
    let limits = named_limits("a route", field);
    if field.is_empty_map() {
        field.error("is empty (name at least one, for example `burst: 10/1m`, or remove the key)");
    }
    for (limit, field) in &limits {
        let namesake = |plan: &&Arc<Plan>| plan.limits.iter().any(|other| other.name == limit.name);
        if let Some(plan) = plans.and_then(|plans| plans.values().find(namesake)) {
            field.error(format!(
                "the plan \"{}\" has a limit of this name too, and clients could not tell them apart (choose another name)",
                plan.name
            ));
        }
    }
    let limits: Box<[Limit]> = limits.into_iter().map(|(limit, _)| limit).collect();
    (!limits.is_empty()).then(|| RouteLimits { route: route.into(), limits })
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

/// Complains about a route whose requests cost more than its own limits or some plan's ever admit at once.
pub(super) fn check_cost(cost: u32, field: &Field<'_>, own: Option<&RouteLimits>, plans: &PlansByName) {
    // A limit of 0 was warned about; it admits nothing, whatever that costs.
    let too_low = |limit: &&Limit| (1..cost).contains(&limit.count);
    if let Some(limit) = own.and_then(|own| own.limits.iter().find(too_low)) {
        field.error(format!(
            "a request that costs {cost} can never pass the route's own limit \"{}\" ({} in {}): lower this, raise that",
            limit.name,
            limit.count,
            say_duration(limit.window()),
        ));
    }
    for plan in plans.values() {
        if let Some(limit) = plan.limits.iter().find(too_low) {
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
pub(super) fn check_name(name: &str, field: &Field<'_>) {
    let good = (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    if !good {
        field.error(format!("a name must be 1 to 32 characters out of A-Z a-z 0-9 _ -, not {}", shown(name)));
    }
}
