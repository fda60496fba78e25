//! Host + path + method → route. What is judged here is what is forwarded, byte for byte, unless the route says how to rewrite it.

mod host_routes;
mod path;
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

use crate::config::{self, Cors, HostPattern, RouteAccess};

use rewrite::Rewriter;

pub use host_routes::HostRoutes;
pub use path::{JudgedPath, PathFault, judge};
pub use route_match::{RouteError, RouteMatch};

/// All routes of one configuration.
pub struct RouteTable {
    exact: HashMap<Arc<str>, HostRoutes>,
    /// By how hosts end, the longest first.
    suffixes: Vec<(Arc<str>, HostRoutes)>,
    /// For all other hosts.
    others: HostRoutes,
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
            let no_host = route.hosts.is_empty().then_some(None);
            for host in route.hosts.iter().map(Some).chain(no_host) {
                by_host.entry(host).or_default().push(index);
            }
        }
        let rewriters = routes.iter().map(|route| Rewriter::new(route)).collect::<Result<_, _>>()?;
        let others = HostRoutes::new(routes, &[])?;
        let guarded = routes.iter().filter(|route| route.access != RouteAccess::Public);
        let cors = Cors::union(guarded.filter_map(|route| route.cors.as_ref()));
        let mut table = Self { exact: HashMap::new(), suffixes: Vec::new(), others, rewriters, cors };
        for (host, indices) in by_host {
            let of_host = HostRoutes::new(routes, &indices)?;
            match host {
                Some(HostPattern::Exact(host)) => drop(table.exact.insert(host.clone(), of_host)),
                Some(HostPattern::Suffix(end)) => table.suffixes.push((end.clone(), of_host)),
                None => table.others = of_host,
            }
        }
        table.suffixes.sort_by_key(|(end, _)| std::cmp::Reverse(end.len()));
        Ok(table)
    }

    /// The routes of one host, given without a port: those that name it, else those of the longest wildcard that covers it,
    /// else those that name none. Only these count: what another host's routes guard is theirs.
    pub fn of_host(&self, host: &str) -> &HostRoutes {
        self.named(host).unwrap_or(&self.others)
    }

    /// Whether routes name this host.
    pub fn names(&self, host: &str) -> bool {
        self.named(host).is_some()
    }

    /// What pages may do without a token, wherever one is needed: what any of those routes allows. It is the same for paths that have
    /// no route, so that it does not show which have one. No answer of a service is read by it.
    pub fn cors(&self) -> Option<&Cors> {
        self.cors.as_ref()
    }

    fn named(&self, host: &str) -> Option<&HostRoutes> {
        if self.exact.is_empty() && self.suffixes.is_empty() {
            return None;
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        let host = match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(host.to_ascii_lowercase()),
            false => Cow::Borrowed(host),
        };
        let covers = |end: &str| host.len() > end.len() && host.ends_with(end);
        let by_suffix = || self.suffixes.iter().find(|(end, _)| covers(end)).map(|(_, routes)| routes);
        self.exact.get(&*host).or_else(by_suffix)
    }

    /// The path that the upstream of a route sees in place of this one, which [`judge`] has passed; `None`: the client's own.
    pub fn rewritten(&self, route: usize, path: &str) -> Option<String> {
        self.rewriters.get(route)?.as_ref()?.rewrite(path)
    }
}
