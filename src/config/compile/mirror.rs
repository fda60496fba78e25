//! `mirror` of a route: who gets a copy of how many of its requests.

use std::time::Duration;

use crate::config::mirror::{Mirror, WHOLE};
use crate::config::reader::{Field, Section};
use crate::config::split::Split;
use crate::config::yaml::Value;

use super::destinations::named;
use super::upstreams::Upstreams;

/// Most JSON requests are far shorter.
const MAX_BODY: usize = 64 << 10;
/// With bodies of the default length, some six megabytes.
const MAX_COPIES: usize = 100;
/// A copy holds its place for no longer than this.
const TIMEOUT: Duration = Duration::from_secs(10);

/// `None` when there is none, or when it was complained about. `split` is where the requests themselves go.
pub(super) fn mirror(s: &Section<'_>, split: Option<&Split>, upstreams: &Upstreams<'_>) -> Option<Mirror> {
    let s = s.get("mirror")?.section(&["upstream", "share", "max_body", "max_copies", "timeout"]);
    let mirror = Mirror {
        upstream: 0,
        share: s.or("share", WHOLE, |f| share(f)),
        max_body: s.or("max_body", MAX_BODY, |f| f.buffer(0..=16 << 20)),
        max_copies: s.or("max_copies", MAX_COPIES, |f| f.number(1..=10_000)),
        timeout: s.or("timeout", TIMEOUT, |f| f.duration(Duration::from_millis(10)..=Duration::from_secs(300))),
    };
    let field = s.require("upstream", "the name of one under `upstreams`")?;
    let upstream = named(&field, &field.text()?, upstreams)?;
    if split.is_some_and(|split| split.upstreams().any(|other| other == upstream)) {
        field.error(format!(
            "is where the route's own requests go: {} would get them twice (name another)",
            field.shown()
        ));
        return None;
    }
    Some(Mirror { upstream, ..mirror })
}

/// A share of all requests, to a ten-thousandth of a percent.
fn share(field: &Field<'_>) -> Option<u32> {
    let scalar = field.scalar()?;
    let number = match scalar.as_ref() {
        Value::Text(text) => text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::List(_) | Value::Map(_) => None,
    };
    let Some(percent) = number.filter(|number| (0.0..=100.0).contains(number)) else {
        field.error(format!("must be a share from 0% to 100% (for example 10% or 0.5%), not {}", field.kind()));
        return None;
    };
    // Within 0 and a million.
    Some((percent * f64::from(WHOLE) / 100.0).round() as u32)
}
