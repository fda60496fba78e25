//! `mirror` of a route: the upstream that gets copies of a share of its requests.

use super::destinations::{UPSTREAM_REMEDY, upstream};
use super::upstreams::UpstreamTable;
use crate::config::units::{MILLISECOND, MINUTE, SECOND};
use crate::config::{FULL_SHARE, Mirror, Section, Split};

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
fn parts_per_million(percent: f64) -> u32 {
    (percent * f64::from(FULL_SHARE) / 100.0).round() as u32
}
