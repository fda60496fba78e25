//! What a request leads to, and why routes can't be laid out.

use std::sync::Arc;

use http::HeaderValue;

use crate::config::Route;

/// Why the routes of a configuration can't be laid out.
#[derive(Debug, thiserror::Error)]
#[error("route {name}: {reason}")]
pub struct RouteError {
    name: Arc<str>,
    reason: String,
}

impl RouteError {
    pub(super) fn new(route: &Route, reason: &matchit::InsertError) -> Self {
        Self { name: route.name.clone(), reason: reason.to_string() }
    }
}

/// What a request leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteMatch<'a> {
    /// The index of the route.
    Route(usize),
    /// The path is known, but not with this method; the value of `Allow`.
    WrongMethod(&'a HeaderValue),
    /// No route has this path.
    Nothing,
}
