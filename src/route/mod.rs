//! Host + path + method → route. What is judged here is what is forwarded, byte for byte, unless the route says how to rewrite it.

mod path;
mod paths;
mod readings;
mod rewrite;
mod site;
#[cfg(test)]
mod spellings;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};

use crate::config::{self, HostPattern};

use paths::Paths;
use rewrite::Rewriter;

pub use path::{JudgedPath, PathFault, judge};

/// Why the routes of a configuration can't be laid out.
#[derive(Debug, thiserror::Error)]
#[error("route {name}: {reason}")]
pub struct RouteError {
    name: Arc<str>,
    reason: String,
}

/// What a request leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// The index of the route.
    Route(usize),
    /// The path is known, but not with this method; the value of `Allow`.
    WrongMethod(&'a HeaderValue),
    /// No route has this path.
    Nothing,
}

/// All routes of one configuration.
pub struct RouteTable {
    exact: HashMap<Box<str>, Paths>,
    /// By how hosts end, the longest first.
    suffixes: Vec<(Box<str>, Paths)>,
    /// For all other hosts.
    others: Paths,
    /// By route.
    rewriters: Vec<Option<Rewriter>>,
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
        let mut table = Self { exact: HashMap::new(), suffixes: Vec::new(), others, rewriters };
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
        HostRoutes(self.paths(host))
    }

    fn paths(&self, host: &str) -> &Paths {
        if self.exact.is_empty() && self.suffixes.is_empty() {
            return &self.others;
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        let host = match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(host.to_ascii_lowercase()),
            false => Cow::Borrowed(host),
        };
        let covers = |end: &str| host.len() > end.len() && host.ends_with(end);
        let by_suffix = || self.suffixes.iter().find(|(end, _)| covers(end)).map(|(_, paths)| paths);
        self.exact.get(&*host).or_else(by_suffix).unwrap_or(&self.others)
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
    pub fn find(self, path: &str, method: &Method, headers: &HeaderMap) -> Found<'a> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HeaderMatch, Route};

    type Headers<'a> = &'a [(&'static str, &'static str)];

    fn table(routes: &[(&[&str], &str, Headers<'_>)]) -> RouteTable {
        let host = |text: &&str| match text.strip_prefix('*') {
            Some(end) => HostPattern::Suffix(end.into()),
            None => HostPattern::Exact((*text).into()),
        };
        let header = |(name, value): &(&'static str, &'static str)| HeaderMatch {
            name: http::HeaderName::from_static(name),
            value: (*value != "*").then(|| HeaderValue::from_static(value)),
        };
        let routes: Vec<_> = routes
            .iter()
            .map(|(hosts, path, headers)| {
                let (hosts, headers) = (hosts.iter().map(host).collect(), headers.iter().map(header).collect());
                Arc::new(Route { hosts, path: (*path).into(), headers, ..Route::default() })
            })
            .collect();
        RouteTable::new(&routes).unwrap()
    }

    fn found(table: &RouteTable, host: &str, path: &str, headers: Headers<'_>) -> Option<usize> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        match table.of_host(host).find(path, &Method::GET, &map) {
            Found::Route(route) => Some(route),
            Found::Nothing | Found::WrongMethod(_) => None,
        }
    }

    #[test]
    fn the_host_decides_first_and_alone() {
        let table = table(&[
            (&["api.test"], "/a", &[]),
            (&["*.test"], "/{*rest}", &[]),
            (&["*.b.test", "c.other"], "/{*rest}", &[]),
            (&[], "/a", &[]),
            (&[], "/b", &[]),
        ]);
        for (host, path, route) in [
            ("api.test", "/a", Some(0)),
            ("API.Test.", "/a", Some(0)),
            ("api.test", "/b", None),
            ("x.test", "/b", Some(1)),
            ("x.y.test", "/b", Some(1)),
            ("a.b.test", "/a", Some(2)),
            ("b.test", "/a", Some(1)),
            ("c.other", "/a", Some(2)),
            ("test", "/a", Some(3)),
            (".test", "/a", Some(3)),
            ("other", "/b", Some(4)),
            ("", "/b", Some(4)),
        ] {
            assert_eq!(found(&table, host, path, &[]), route, "{host} {path}");
        }
    }

    #[test]
    fn of_several_routes_with_one_path_the_one_that_asks_for_most_is_taken() {
        let table = table(&[
            (&[], "/a", &[]),
            (&[], "/a", &[("x-version", "2")]),
            (&[], "/a", &[("x-beta", "*"), ("x-version", "2")]),
            (&[], "/b", &[("x-beta", "*")]),
        ]);
        for (path, headers, route) in [
            ("/a", &[][..], Some(0)),
            ("/a", &[("x-version", "1")], Some(0)),
            ("/a", &[("x-version", "2")], Some(1)),
            ("/a", &[("x-version", "1"), ("x-version", "2")], Some(1)),
            ("/a", &[("x-version", "2"), ("x-beta", "")], Some(2)),
            ("/b", &[("x-beta", "yes")], Some(3)),
            ("/b", &[], None),
        ] {
            assert_eq!(found(&table, "h", path, headers), route, "{path} {headers:?}");
        }
    }
}
