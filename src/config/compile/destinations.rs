//! Where a route's requests go: `upstream`, one or several by weight, and `split_by`.

use crate::config::place::{hint, shown};
use crate::config::reader::{Field, Section};
use crate::config::split::{Split, SplitBy};

use super::upstreams::Upstreams;

const MOST_WEIGHT: u32 = 1_000_000;

/// `None` when it was complained about.
pub(super) fn split(s: &Section<'_>, upstreams: &Upstreams<'_>) -> Option<Split> {
    let field = s.require("upstream", "the name of one under `upstreams`")?;
    let choices = [("token", SplitBy::Token), ("request", SplitBy::Request)];
    let by = s.or("split_by", SplitBy::default(), |f| f.choice(&choices));
    if !field.is_map() {
        return named(&field, &field.text()?, upstreams).map(Split::to);
    }
    let weighted = field.names();
    if weighted.is_empty() {
        field.error("is empty (name at least one upstream and its weight, for example { stable: 95, canary: 5 })");
        return None;
    }
    let weights: Vec<_> = weighted
        .iter()
        .map(|(name, weight)| Some((named(weight, name, upstreams)?, weight.number(0..=MOST_WEIGHT)?)))
        .collect();
    let weights: Vec<_> = weights.into_iter().collect::<Option<_>>()?;
    let split = Split::weighted(&weights, by);
    if split.is_none() {
        field.error("gives every upstream the weight 0 (give one of them more)");
    }
    split
}

/// The index of an upstream.
pub(super) fn named(field: &Field<'_>, name: &str, upstreams: &Upstreams<'_>) -> Option<usize> {
    let found = upstreams.indices.get(name).copied();
    // Where there is no upstream at all, that has been told.
    if found.is_none() && !upstreams.compiled.is_empty() {
        let names = upstreams.compiled.iter().map(|upstream| &*upstream.name);
        field.error(format!("no upstream is called {}{}", shown(name), hint(name, names)));
    }
    found
}
