//! `host`, `headers`, `strip_prefix` and `rewrite` of a route.

use std::net::Ipv6Addr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::address::is_host;
use super::paths;
use crate::config::{Field, HeaderMatch, HostPattern, PathForms, Piece, Rewrite, Section, hint, quoted};

/// Header conditions of one route.
const MAX_HEADERS: usize = 16;
const BAD_BRACES: &str = "has braces that do not form a parameter (write {name})";

/// No host means every host that no route names. `None` if one of them was reported.
pub(super) fn hosts(s: &Section<'_>) -> Option<Vec<HostPattern>> {
    let Some(field) = s.get("host") else { return Some(Vec::new()) };
    field.one_or_more_different("name at least one, or remove the key", host)
}

fn host(field: &Field<'_>) -> Option<HostPattern> {
    let text = field.text()?.to_ascii_lowercase();
    let name = text.strip_suffix('.').unwrap_or(&text);
    let ipv6 = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let pattern = match name.strip_prefix('*') {
        Some(end) => end.strip_prefix('.').is_some_and(is_host).then(|| HostPattern::Suffix(end.into())),
        None => (is_host(name) || ipv6.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()))
            .then(|| HostPattern::Exact(name.into())),
    };
    field.must_be("a host without a port (for example api.example.com, or *.example.com)", pattern)
}

pub(super) fn headers(s: &Section<'_>) -> Vec<HeaderMatch> {
    let Some(field) = s.get("headers") else { return Vec::new() };
    let named = field.names();
    if named.len() > MAX_HEADERS {
        field.error(format!("must not have more than {MAX_HEADERS} headers"));
    }
    let mut matches: Vec<HeaderMatch> = named.iter().filter_map(|(name, field)| header(name, field)).collect();
    // Two routes with the same conditions in another order have the same conditions.
    matches.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
    matches
}

fn header(name: &str, field: &Field<'_>) -> Option<HeaderMatch> {
    let name = header_name(field, name)?;
    let text = field.text()?;
    let value = HeaderValue::from_str(&text).map_err(|_| "must be a text that a header can have, or \"*\" for any");
    let value = field.accept(value)?;
    Some(HeaderMatch { name, value: Some(value).filter(|_| text != "*") })
}

pub(super) fn header_name(field: &Field<'_>, name: &str) -> Option<HeaderName> {
    let wrong = |_| format!("{} is not the name of a header", quoted(name));
    field.accept(HeaderName::from_bytes(name.as_bytes()).map_err(wrong))
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
    field.accept(paths::check(&text, forms))?;
    let pieces = field.accept(pieces(&text, &parameters(path.unwrap_or_default())))?;
    Some(Rewrite::Template(pieces.into()))
}

fn prefix(field: &Field<'_>, path: Option<&str>) -> Option<Arc<str>> {
    let text = field.text()?;
    let prefix = text.strip_suffix('/').unwrap_or(&text);
    if !prefix.starts_with('/') || prefix.contains(['{', '}']) {
        return field.accept(Err("must be fixed text that starts with a slash (for example /api/v1)"));
    }
    let path = path?;
    let begins = path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let wrong = || format!("the route's path, {}, does not begin with this (only whole segments count)", quoted(path));
    field.accept(begins.then(|| prefix.into()).ok_or_else(wrong))
}

/// The names of a pattern's parameters.
fn parameters(path: &str) -> Vec<&str> {
    let named = path.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
    named.map(|(name, _)| name.strip_prefix('*').unwrap_or(name)).collect()
}

fn pieces(template: &str, known: &[&str]) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some((text, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or(BAD_BRACES)?;
        let name = name.strip_prefix('*').unwrap_or(name);
        if !known.contains(&name) {
            let none = if known.is_empty() { " (it has none)".to_owned() } else { hint(name, known.iter().copied()) };
            return Err(format!("the route's path has no parameter {}{none}", quoted(name)));
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text.into()));
        }
        pieces.push(Piece::Parameter(name.into()));
        rest = after;
    }
    if rest.contains('}') {
        return Err(BAD_BRACES.to_owned());
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.into()));
    }
    Ok(pieces)
}
