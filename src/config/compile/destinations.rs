//! `upstream` and `split_by` of a route: where its requests go.

use super::upstreams::UpstreamTable;
use crate::config::{Field, Section, Split, SplitBy, hint, quoted};

pub(super) const UPSTREAM_REMEDY: &str = "the name of one under `upstreams`";
const MAX_WEIGHT: u32 = 1_000_000;

/// `None` if it was reported.
pub(super) fn split(s: &Section<'_>, upstreams: &UpstreamTable<'_>) -> Option<Split> {
    let choices = [("token", SplitBy::Token), ("request", SplitBy::Request)];
    let field = s.require("upstream", UPSTREAM_REMEDY);
    let by = s.or("split_by", SplitBy::default(), |f| f.choice(&choices));
    let field = field?;
    if !field.is_map() {
        return upstream(&field, &field.text()?, upstreams).map(Split::to);
    }
    if field.is_empty_map() {
        let remedy = "name at least one upstream and its weight, for example { stable: 95, canary: 5 }";
        return field.accept(Err(format!("is empty ({remedy})")));
    }
    let weight = |(name, weight): &(&str, Field<'_>)| {
        let (upstream, weight) = (upstream(weight, name, upstreams), weight.number(0..=MAX_WEIGHT));
        upstream.zip(weight)
    };
    let weights: Vec<_> = field.names().iter().map(weight).collect();
    let weights: Vec<_> = weights.into_iter().collect::<Option<_>>()?;
    field.accept(Split::weighted(&weights, by).ok_or("gives every upstream the weight 0 (give one of them more)"))
}

/// The index of an upstream.
pub(super) fn upstream(field: &Field<'_>, name: &str, upstreams: &UpstreamTable<'_>) -> Option<usize> {
    let index = upstreams.indices.get(name).copied();
    // A file without any upstream has an error for that.
    if index.is_none() && !upstreams.compiled.is_empty() {
        let names = upstreams.compiled.iter().map(|upstream| &*upstream.name);
        field.error(format!("no upstream is called {}{}", quoted(name), hint(name, names)));
    }
    index
}
