//! `upstream`, `split_by` and `mirror` of a route: where its requests and their copies go.

use super::upstreams::UpstreamTable;
use crate::config::units::{MILLISECOND, MINUTE, SECOND};
use crate::config::{FULL_SHARE, Field, Mirror, Section, Split, SplitBy, hint, quoted};

const UPSTREAM_REMEDY: &str = "the name of one under `upstreams`";
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
fn upstream(field: &Field<'_>, name: &str, upstreams: &UpstreamTable<'_>) -> Option<usize> {
    let index = upstreams.indices.get(name).copied();
    // A file without any upstream has an error for that.
    if index.is_none() && !upstreams.compiled.is_empty() {
        let names = upstreams.compiled.iter().map(|upstream| &*upstream.name);
        field.error(format!("no upstream is called {}{}", quoted(name), hint(name, names)));
    }
    index
}

/// `None` if there is none, or if it was reported. `split` is where the requests themselves go.
pub(super) fn mirror(s: &Section<'_>, split: Option<&Split>, upstreams: &UpstreamTable<'_>) -> Option<Mirror> {
    let s = s.get("mirror")?.section();
    let field = s.require("upstream", UPSTREAM_REMEDY);
    let mirror = Mirror {
        upstream: 0,
        share: s.optional("share", |f| f.percent::<f64>("10% or 0.5%")).map_or(FULL_SHARE, parts_per_million),
        // Most JSON requests are far shorter.
        max_body: s.or("max_body", 64 << 10, |f| f.buffer(0..=16 << 20)),
        // With bodies of the default length, some six megabytes.
        max_copies: s.or("max_copies", 100, |f| f.number(1..=10_000)),
        timeout: s.or("timeout", 10 * SECOND, |f| f.duration(10 * MILLISECOND..=5 * MINUTE)),
    };
    let field = field?;
    let upstream = upstream(&field, &field.text()?, upstreams)?;
    if split.is_some_and(|split| split.upstreams().any(|other| other == upstream)) {
        let name = field.shown();
        return field.accept(Err(format!("gets the route's own requests: {name} would get them twice (name another)")));
    }
    Some(Mirror { upstream, ..mirror })
}

/// `percent` is from 0 to 100.
pub(super) fn parts_per_million(percent: f64) -> u32 {
    (percent * f64::from(FULL_SHARE) / 100.0).round() as u32
}
