//! The routes of one host: path + method + headers → route.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};

use crate::config::Route;

use super::pattern::Pattern;
use super::readings::{Reading, Readings};
use super::route_match::{RouteError, RouteMatch};
use super::site::Site;

/// The routes of one host.
pub struct HostRoutes {
    exact: matchit::Router<usize>,
    /// The same patterns, as upstreams may take paths that are less exact than ours.
    readings: Readings,
    sites: Vec<Site>,
}

impl HostRoutes {
    /// Lays out the routes with these indices.
    ///
    /// # Errors
    /// A pattern that is malformed or in conflict with another; the configuration's own check says it more kindly.
    pub(super) fn new(routes: &[Arc<Route>], indices: &[usize]) -> Result<Self, RouteError> {
        let mut table = Self { exact: matchit::Router::new(), readings: Readings::new(), sites: Vec::new() };
        let mut sites: HashMap<&str, usize> = HashMap::new();
        let mut roots = Vec::new();
        for index in indices {
            let route = &routes[*index];
            let new = table.sites.len();
            let site = *sites.entry(&route.path).or_insert(new);
            if site == new {
                let refuse = |error| RouteError::new(route, &error);
                table.exact.insert(&*route.path, site).map_err(refuse)?;
                let pattern = Pattern::new(&route.path);
                table.readings.insert(&pattern, site);
                table.sites.push(Site::new(pattern.is_literal()));
                let slash = route.path.rfind('/').filter(|_| pattern.has_rest());
                roots.extend(slash.map(|slash| (&route.path[..=slash], site)));
            }
            table.sites[site].add(*index, route);
        }
        for (root, site) in roots {
            // The rest may be empty. A route of its own for that path was there before, and stays.
            let _ = table.exact.insert(root, site);
        }
        Ok(table)
    }

    /// Finds the route of a path that [`super::judge`] has passed.
    pub fn find(&self, path: &str, method: &Method, headers: &HeaderMap) -> RouteMatch<'_> {
        self.site(path, method).map_or(RouteMatch::Nothing, |site| site.find(method, headers))
    }

    /// The routes of a path that take this method, whatever headers they ask for: a browser asks before it sends those.
    pub fn candidates<'a>(&'a self, path: &str, method: &'a Method) -> impl Iterator<Item = usize> + use<'a> {
        self.site(path, method).into_iter().flat_map(|site| site.routes(method))
    }

    /// The methods that a path's routes take, as `Allow` lists them; `None` when they take all, or there are none.
    pub fn allow(&self, path: &str) -> Option<&HeaderValue> {
        self.site(path, &Method::OPTIONS)?.allow()
    }

    /// The pattern whose routes judge a path with this method. Many upstreams take `/calls/` for `/calls`, or `/CALLS` and `/calls.`; so
    /// a less specific route must not open what a more specific one guards.
    fn site(&self, path: &str, method: &Method) -> Option<&Site> {
        let as_it_is = self.exact.at(path).ok().map(|found| *found.value);
        match as_it_is {
            Some(site) if self.sites[site].is_literal || self.readings.is_certain(path) => {
                return self.sites.get(site);
            }
            None if !path.ends_with('/') => return None,
            Some(_) | None => {}
        }
        let readings = self.readings.of(path);
        let is_most_specific = |site: &usize| readings.iter().all(|reading| reading.allows(*site));
        if let Some(site) = as_it_is.filter(is_most_specific) {
            return self.sites.get(site);
        }
        // With a slash more or less at its end the stricter pattern decides, the more specific one first. Any other spelling is refused.
        let near = self.with_other_end(path).filter(is_most_specific)?;
        let meant = || readings.iter().flat_map(Reading::patterns).chain(as_it_is);
        let is_strictest = |site: &usize| {
            meant().all(|other| other == *site || self.sites[*site].is_as_strict_as(&self.sites[other], method))
        };
        let site = [Some(near), as_it_is].into_iter().flatten().find(is_strictest)?;
        self.sites.get(site)
    }

    /// The pattern of a path with a slash more at its end, or one less.
    fn with_other_end(&self, path: &str) -> Option<usize> {
        let other: Cow<'_, str> = match path.strip_suffix('/') {
            Some(bare) => bare.into(),
            None => [path, "/"].concat().into(),
        };
        self.exact.at(&other).ok().map(|found| *found.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RouteAccess;

    struct Table(HostRoutes);

    impl Table {
        fn find(&self, path: &str, method: &Method) -> RouteMatch<'_> {
            self.0.find(path, method, &HeaderMap::new())
        }
    }

    fn table(routes: &[(&str, &[Method])]) -> Table {
        laid_out(routes.iter().map(|(path, methods)| Route {
            path: (*path).into(),
            methods: methods.to_vec(),
            ..Route::default()
        }))
    }

    fn laid_out(routes: impl Iterator<Item = Route>) -> Table {
        let routes: Vec<_> = routes.map(Arc::new).collect();
        let indices: Vec<usize> = (0..routes.len()).collect();
        Table(HostRoutes::new(&routes, &indices).unwrap())
    }

    fn calls() -> Table {
        table(&[
            ("/api/v1/calls", &[Method::GET]),
            ("/api/v1/calls", &[Method::POST]),
            ("/api/v1/calls/{id}/stream", &[]),
            ("/api/v1/{*rest}", &[]),
        ])
    }

    #[test]
    fn a_path_and_a_method_lead_to_their_route() {
        let table = calls();
        assert_eq!(table.find("/api/v1/calls", &Method::GET), RouteMatch::Route(0));
        assert_eq!(table.find("/api/v1/calls", &Method::HEAD), RouteMatch::Route(0));
        assert_eq!(table.find("/api/v1/calls", &Method::POST), RouteMatch::Route(1));
        assert_eq!(table.find("/api/v1/calls/17/stream", &Method::PATCH), RouteMatch::Route(2));
        assert_eq!(table.find("/api/v1/else", &Method::GET), RouteMatch::Route(3));
        assert_eq!(table.find("/api/v2/else", &Method::GET), RouteMatch::Nothing);
    }

    #[test]
    fn a_catch_all_takes_nothing_too_unless_another_route_does() {
        assert_eq!(calls().find("/api/v1/", &Method::GET), RouteMatch::Route(3));
        assert_eq!(calls().find("/api/v1", &Method::GET), RouteMatch::Nothing);
        let table = table(&[("/{*rest}", &[]), ("/", &[])]);
        assert_eq!(table.find("/", &Method::GET), RouteMatch::Route(1));
    }

    #[test]
    fn a_wrong_method_says_what_is_allowed() {
        let allow = HeaderValue::from_static("GET, HEAD, POST");
        assert_eq!(calls().find("/api/v1/calls", &Method::DELETE), RouteMatch::WrongMethod(&allow));
    }

    #[test]
    fn a_trailing_slash_does_not_slip_past_a_route_into_a_catch_all() {
        assert_eq!(calls().find("/api/v1/calls/", &Method::POST), RouteMatch::Route(1));
        assert_eq!(calls().find("/api/v1/calls/7/stream/", &Method::GET), RouteMatch::Route(2));
        assert_eq!(calls().find("/api/v1/calls/7/", &Method::GET), RouteMatch::Route(3));
    }

    #[test]
    fn a_route_that_ends_with_a_slash_is_itself() {
        let table = table(&[("/files", &[]), ("/files/", &[])]);
        assert_eq!(table.find("/files", &Method::GET), RouteMatch::Route(0));
        assert_eq!(table.find("/files/", &Method::GET), RouteMatch::Route(1));
    }

    #[test]
    fn another_case_does_not_slip_past_a_route_into_a_catch_all() {
        assert_eq!(calls().find("/api/v1/CALLS", &Method::POST), RouteMatch::Nothing);
        assert_eq!(calls().find("/api/v1/Calls/", &Method::POST), RouteMatch::Nothing);
        assert_eq!(calls().find("/api/v1/calls/AbC/stream", &Method::GET), RouteMatch::Route(2));
        assert_eq!(calls().find("/api/v1/calls/AbC/STREAM", &Method::GET), RouteMatch::Nothing);
        assert_eq!(calls().find("/api/v1/Files/X", &Method::GET), RouteMatch::Route(3));
    }

    fn token(permissions: &[&str]) -> RouteAccess {
        RouteAccess::Token(permissions.iter().map(|permission| (*permission).into()).collect())
    }

    fn guarded(routes: &[(&str, &[Method], RouteAccess)]) -> Table {
        laid_out(routes.iter().map(|(path, methods, access)| Route {
            path: (*path).into(),
            methods: methods.to_vec(),
            access: access.clone(),
            ..Route::default()
        }))
    }

    /// Where GETs lead, by their paths.
    fn assert_found(table: &Table, expected: &[(&str, Option<usize>)]) {
        for (path, route) in expected {
            let found = route.map_or(RouteMatch::Nothing, RouteMatch::Route);
            assert_eq!(table.find(path, &Method::GET), found, "{path}");
            let candidates: Vec<usize> = table.0.candidates(path, &Method::GET).collect();
            assert_eq!(candidates, route.iter().copied().collect::<Vec<_>>(), "{path}");
        }
    }

    #[test]
    fn a_less_specific_route_does_not_open_what_another_guards() {
        let table = guarded(&[
            ("/{*rest}", &[], RouteAccess::Public),
            ("/admin/{*rest}", &[], token(&[])),
            ("/users/{id}", &[], token(&[])),
            ("/users/{id}/notes/", &[], token(&[])),
            ("/users/me", &[], RouteAccess::Public),
            ("/Ops/{*rest}", &[], token(&[])),
            ("/caf%C3%A9/@{name}", &[], token(&[])),
        ]);
        let spellings = [
            ("/admin/", Some(1)),
            ("/admin", Some(1)),
            ("/admin/x", Some(1)),
            ("/ADMIN/", None),
            ("/ADMIN", None),
            ("/admin.", None),
            ("/admin%20/", None),
            ("/admin/%20", Some(1)),
            ("/admins", Some(0)),
            ("/users/7", Some(2)),
            ("/users/7/", Some(2)),
            ("/users/Ab./", Some(2)),
            ("/USERS/7/", None),
            ("/users/me/", Some(4)),
            ("/users/ME", None),
            ("/users/7/notes", Some(3)),
            ("/users/7/Notes", None),
            ("/users/7/x", Some(0)),
            ("/users/", Some(0)),
            ("/Ops/", Some(5)),
            ("/ops/", None),
            ("/ops/x", None),
            ("/caf%C3%A9/@a/", Some(6)),
            ("/caf%c3%a9/@a", None),
            ("/caf%C3%A9/%40a", None),
            ("/Else./%20/", Some(0)),
        ];
        assert_found(&table, &spellings);
    }

    #[test]
    fn of_a_slash_more_or_less_the_stricter_route_decides() {
        let table = guarded(&[
            ("/{*rest}", &[], token(&["web"])),
            ("/health", &[], RouteAccess::Public),
            ("/both/{*rest}", &[], token(&["web", "both"])),
            ("/both", &[], token(&["web"])),
            ("/other", &[], token(&["other"])),
            ("/posts", &[Method::GET], token(&["web"])),
            ("/posts", &[Method::POST], RouteAccess::Public),
            ("/docs/{*rest}", &[], token(&["web"])),
        ]);
        let spellings = [
            ("/health", Some(1)),
            ("/health/", Some(0)),
            ("/both", Some(3)),
            ("/both/", Some(2)),
            // Neither asks for all that the other asks for.
            ("/other/", None),
            ("/posts/", Some(5)),
            // Of two that ask for the same, the more specific one.
            ("/docs", Some(7)),
        ];
        assert_found(&table, &spellings);
        assert_eq!(table.find("/posts/", &Method::POST), RouteMatch::Route(0));
        assert_eq!(table.find("/posts/", &Method::PUT), table.find("/posts", &Method::PUT));
        assert_eq!(table.0.allow("/posts/"), table.0.allow("/posts"));
    }

    #[test]
    fn patterns_that_differ_in_case_or_slash_alone_are_both_there_on_purpose() {
        let table = guarded(&[
            ("/Users/{id}", &[], RouteAccess::Public),
            ("/users/{id}", &[], token(&[])),
            ("/users/{id}/", &[], token(&["slash"])),
            ("/Files", &[], RouteAccess::Public),
            ("/files", &[], token(&[])),
            ("/{*rest}", &[], RouteAccess::Public),
            // In lower case these two could not stand beside each other.
            ("/Docs/{*rest}", &[], RouteAccess::Public),
            ("/docs/{page}", &[], token(&[])),
        ]);
        let spellings = [
            ("/Users/7", Some(0)),
            ("/users/7", Some(1)),
            ("/users/7/", Some(2)),
            ("/Users/7/", None),
            ("/USERS/7", None),
            ("/Files", Some(3)),
            ("/files", Some(4)),
            ("/files/", Some(4)),
            ("/Files/", None),
            ("/docs/a", Some(7)),
            ("/Docs/a", None),
            ("/Docs/a/b", Some(6)),
        ];
        assert_found(&table, &spellings);
    }

    /// matchit takes the second path's name for one that ends with `.png`, and looks no further.
    #[test]
    fn paths_that_matchit_misses_are_guarded() {
        let table = guarded(&[
            ("/{*rest}", &[], RouteAccess::Public),
            ("/pictures/{name}.png/size", &[], token(&[])),
            ("/pictures/{name}/owner", &[], token(&[])),
        ]);
        assert_found(&table, &[("/pictures/a/owner", Some(2)), ("/pictures/a.png/owner", None)]);
    }
}
