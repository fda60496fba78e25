//! `host`, `headers`, `strip_prefix` and `rewrite` of a route.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::paths;
use super::upstreams::is_host;
use crate::config::matching::{HeaderMatch, HostPattern, Piece, Rewrite};
use crate::config::model::PathForms;
use crate::config::place::{hint, shown};
use crate::config::reader::{Field, Section};

/// Header conditions of one route.
const MAX_HEADERS: usize = 16;

pub(super) fn hosts(s: &Section<'_>) -> Vec<HostPattern> {
    let Some(field) = s.get("host") else { return Vec::new() };
    let items = field.one_or_many();
    if items.is_empty() && field.is_list() {
        field.error("is empty (name at least one, or remove the key)");
    }
    let mut hosts: Vec<HostPattern> = Vec::with_capacity(items.len());
    for item in items {
        let Some(host) = host(&item) else { continue };
        if hosts.contains(&host) {
            item.error("is given twice (keep one)");
        } else {
            hosts.push(host);
        }
    }
    hosts
}

fn host(field: &Field<'_>) -> Option<HostPattern> {
    let text = field.text()?;
    let lower = text.to_ascii_lowercase();
    let name = lower.strip_suffix('.').unwrap_or(&lower);
    let (is_wildcard, rest) = name.strip_prefix("*.").map_or((false, name), |rest| (true, rest));
    let is_address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if is_address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()) {
        return Some(HostPattern::Exact(name.into()));
    }
    if !is_host(rest) || rest.is_empty() {
        let what = "must be a host without a port (for example api.example.com, or *.example.com)";
        field.error(format!("{what}, not {}", field.shown()));
        return None;
    }
    Some(if is_wildcard { HostPattern::Suffix(name[1..].into()) } else { HostPattern::Exact(name.into()) })
}

pub(super) fn headers(s: &Section<'_>) -> Vec<HeaderMatch> {
    let Some(field) = s.get("headers") else { return Vec::new() };
    let named = field.names();
    if named.len() > MAX_HEADERS {
        field.error(format!("must not hold more than {MAX_HEADERS} headers"));
    }
    let mut matches: Vec<HeaderMatch> = named.iter().filter_map(|(name, field)| header(name, field)).collect();
    // Two routes with the same ones in another order ask the same.
    matches.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
    matches
}

fn header(name: &str, field: &Field<'_>) -> Option<HeaderMatch> {
    let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
        field.error(format!("{} is not the name of a header", shown(name)));
        return None;
    };
    let text = field.text()?;
    if text == "*" {
        return Some(HeaderMatch { name: parsed, value: None });
    }
    match HeaderValue::from_str(&text) {
        Ok(value) => Some(HeaderMatch { name: parsed, value: Some(value) }),
        Err(_) => {
            field.error("must be a text that a header can have, or \"*\" for any");
            None
        }
    }
}

/// `path` and `forms` are the route's own.
pub(super) fn rewrite(s: &Section<'_>, path: Option<&str>, forms: PathForms) -> Option<Rewrite> {
    let (strip, template) = (s.get("strip_prefix"), s.get("rewrite"));
    if let (Some(_), Some(field)) = (&strip, &template) {
        field.error("can't be used together with strip_prefix (keep one)");
    }
    if let Some(field) = strip {
        return prefix(&field, path).map(Rewrite::StripPrefix);
    }
    let field = template?;
    let text = field.text()?;
    if let Err(message) = paths::check(&text, forms) {
        field.error(message);
        return None;
    }
    pieces(&field, &text, &parameters(path.unwrap_or_default())).map(|pieces| Rewrite::Template(pieces.into()))
}

fn prefix(field: &Field<'_>, path: Option<&str>) -> Option<Arc<str>> {
    let text = field.text()?;
    let prefix = text.strip_suffix('/').unwrap_or(&text);
    if !prefix.starts_with('/') || prefix.contains(['{', '}']) {
        field.error("must be fixed text that starts with a slash (for example /api/v1)");
        return None;
    }
    let rest = path?.strip_prefix(prefix);
    if !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
        field.error(format!("is not how the route's path begins, {} (segments are taken off whole)", shown(path?)));
        return None;
    }
    Some(prefix.into())
}

/// The names of a pattern's parameters.
fn parameters(path: &str) -> Vec<&str> {
    let named = path.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
    named.map(|(name, _)| name.strip_prefix('*').unwrap_or(name)).collect()
}

fn pieces(field: &Field<'_>, template: &str, known: &[&str]) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some((text, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else {
            field.error("has braces that do not form a parameter (write {name})");
            return None;
        };
        let name = name.strip_prefix('*').unwrap_or(name);
        if !known.contains(&name) {
            let none = if known.is_empty() { " (it has none)".to_owned() } else { hint(name, known.iter().copied()) };
            field.error(format!("the route's path has no parameter {}{none}", shown(name)));
            return None;
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text.into()));
        }
        pieces.push(Piece::Parameter(name.into()));
        rest = after;
    }
    if rest.contains('}') {
        field.error("has braces that do not form a parameter (write {name})");
        return None;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.into()));
    }
    Some(pieces)
}
