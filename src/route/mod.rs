//! Host + path + method → route. What is judged here is what is forwarded, byte for byte, unless the route says how to rewrite it.

mod path;
mod paths;
mod pattern;
mod readings;
mod rewrite;
mod route_match;
mod site;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};

use crate::config::{self, Cors, HostPattern, RouteAccess};

use paths::Paths;
use rewrite::Rewriter;

pub use path::{JudgedPath, PathFault, judge};
pub use route_match::{RouteError, RouteMatch};

/// All routes of one configuration.
pub struct RouteTable {
    exact: HashMap<Box<str>, Paths>,
    /// By how hosts end, the longest first.
    suffixes: Vec<(Box<str>, Paths)>,
    /// For all other hosts.
    others: Paths,
    /// By route.
    rewriters: Vec<Option<Rewriter>>,
    cors: Option<Cors>,
}

impl RouteTable {
    /// Lays out the routes.
    ///
    /// # Errors
    /// A pattern that is malformed or in conflict with another; the configuration's own check says it more kindly.
    pub fn new(routes: &[Arc<config::Route>]) -> Result<Self, RouteError> {
        let mut by_host: HashMap<Option<&HostPattern>, Vec<usize>> = HashMap::new();
        for (index, route) in routes.iter().enumerate() {
            if route.hosts.is_empty() {
                by_host.entry(None).or_default().push(index);
            }
            for host in &route.hosts {
                by_host.entry(Some(host)).or_default().push(index);
            }
        }
        let rewriters = routes.iter().map(|route| Rewriter::new(route)).collect::<Result<_, _>>()?;
        let others = Paths::new(routes, by_host.get(&None).map_or(&[], Vec::as_slice))?;
        let guarded = routes.iter().filter(|route| route.access != RouteAccess::Public);
        let cors = Cors::union(guarded.filter_map(|route| route.cors.as_ref()));
        let mut table = Self { exact: HashMap::new(), suffixes: Vec::new(), others, rewriters, cors };
        for (host, indices) in by_host {
            match host {
                Some(HostPattern::Exact(host)) => {
                    table.exact.insert(host.as_ref().into(), Paths::new(routes, &indices)?);
                }
                Some(HostPattern::Suffix(end)) => {
                    table.suffixes.push((end.as_ref().into(), Paths::new(routes, &indices)?));
                }
                None => {}
            }
        }
        table.suffixes.sort_by_key(|(end, _)| std::cmp::Reverse(end.len()));
        Ok(table)
    }

    /// The routes of one host, given without a port: those that name it, else those of the longest wildcard that covers it,
    /// else those that name none. Only these count: what another host's routes guard is theirs.
    #[must_use]
    pub fn of_host(&self, host: &str) -> HostRoutes<'_> {
        HostRoutes(self.named(host).unwrap_or(&self.others))
    }

    /// Whether routes name this host.
    #[must_use]
    pub fn names(&self, host: &str) -> bool {
        self.named(host).is_some()
    }

    /// What pages may do without a token, wherever one is needed: what any of those routes allows. It is the same for paths that have
    /// no route, so that it does not show which have one. No answer of a service is read by it.
    #[must_use]
    pub fn cors(&self) -> Option<&Cors> {
        self.cors.as_ref()
    }

    fn named(&self, host: &str) -> Option<&Paths> {
        if self.exact.is_empty() && self.suffixes.is_empty() {
            return None;
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        let host = match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(host.to_ascii_lowercase()),
            false => Cow::Borrowed(host),
        };
        let covers = |end: &str| host.len() > end.len() && host.ends_with(end);
        let by_suffix = || self.suffixes.iter().find(|(end, _)| covers(end)).map(|(_, paths)| paths);
        self.exact.get(&*host).or_else(by_suffix)
    }

    /// The path that the upstream of a route sees in place of this one, which [`judge`] has passed; `None`: the client's own.
    #[must_use]
    pub fn rewritten(&self, route: usize, path: &str) -> Option<String> {
        self.rewriters.get(route)?.as_ref()?.rewrite(path)
    }
}

/// The routes that one host has.
#[derive(Clone, Copy)]
pub struct HostRoutes<'a>(&'a Paths);

impl<'a> HostRoutes<'a> {
    /// Finds the route of a path that [`judge`] has passed.
    #[must_use]
    pub fn find(self, path: &str, method: &Method, headers: &HeaderMap) -> RouteMatch<'a> {
        self.0.find(path, method, headers)
    }

    /// The routes of a path that take this method, whatever headers they ask for: a browser asks before it sends those.
    pub fn candidates(self, path: &str, method: &Method) -> impl Iterator<Item = usize> + use<'a> {
        self.0.candidates(path, method)
    }

    /// The methods that a path's routes take, as `Allow` lists them; `None` when they take all, or there are none.
    #[must_use]
    pub fn allow(self, path: &str) -> Option<&'a HeaderValue> {
        self.0.allow(path)
    }
}
