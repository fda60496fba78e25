//! The headers that a route sets and removes.

use http::header::{HeaderMap, HeaderName};

use crate::config::HeaderEdits;

use super::kinds::{Names, is_spelling};

/// Applies a route's edits.
pub(super) fn edit(headers: &mut HeaderMap, edits: &HeaderEdits) {
    for name in &edits.remove {
        headers.remove(name);
    }
    for (name, value) in &edits.set {
        headers.insert(name, value.clone());
    }
}

/// The names that a route sets, removes or is chosen by.
pub(super) fn edited(edits: &HeaderEdits) -> impl Iterator<Item = &HeaderName> {
    edits.remove.iter().chain(edits.set.iter().map(|(name, _)| name)).chain(&edits.matched)
}

/// Removes other spellings of the names that a route edits or is chosen by: the upstream might read one of those.
pub(super) fn remove_respelled(headers: &mut HeaderMap, edits: &HeaderEdits) {
    if edited(edits).next().is_none() {
        return;
    }
    remove_all(headers, |name| {
        edited(edits).any(|edited| name != edited && is_spelling(name.as_str(), edited.as_str()))
    });
}

pub(super) fn remove_cors(headers: &mut HeaderMap) {
    remove_all(headers, |name| name.as_str().starts_with("access-control-"));
}

fn remove_all(headers: &mut HeaderMap, is_unwanted: impl Fn(&HeaderName) -> bool) {
    let names: Names = headers.keys().filter(|name| is_unwanted(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}
