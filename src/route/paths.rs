//! The routes of one host: path + method + headers → route.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};

use crate::config::{self, HeaderMatch};

use super::{Found, RouteError};

/// The routes of one host.
pub(super) struct Paths {
    exact: matchit::Router<usize>,
    /// The same patterns, [`folded`]: where an upstream that is less exact would see another route than we do.
    folded: matchit::Router<usize>,
    sites: Vec<Site>,
}

/// One path pattern and the routes that share it.
struct Site {
    /// Those that ask for more stand first.
    candidates: Vec<Candidate>,
    allow: HeaderValue,
    ends_with_slash: bool,
    /// It has no parameters: who asks for it asks for just this.
    is_literal: bool,
}

/// A route, and what it asks beside its path.
struct Candidate {
    methods: Vec<Method>,
    headers: Vec<HeaderMatch>,
    route: usize,
}

impl Candidate {
    fn takes_method(&self, method: &Method) -> bool {
        self.methods.is_empty()
            || self.methods.contains(method)
            || (*method == Method::HEAD && self.methods.contains(&Method::GET))
    }

    fn takes_headers(&self, headers: &HeaderMap) -> bool {
        self.headers.iter().all(|asked| match &asked.value {
            Some(value) => headers.get_all(&asked.name).iter().any(|line| line == value),
            None => headers.contains_key(&asked.name),
        })
    }
}

impl Paths {
    /// Lays out the routes with these indices.
    ///
    /// # Errors
    /// A pattern that is malformed or in conflict with another; the configuration's own check says it more kindly.
    pub(super) fn new(routes: &[Arc<config::Route>], indices: &[usize]) -> Result<Self, RouteError> {
        let mut table = Self { exact: matchit::Router::new(), folded: matchit::Router::new(), sites: Vec::new() };
        let mut patterns: Vec<Arc<str>> = Vec::new();
        for (index, route) in indices.iter().map(|index| (*index, &routes[*index])) {
            let site = match patterns.iter().position(|known| *known == route.path) {
                Some(site) => site,
                None => {
                    let site = patterns.len();
                    table
                        .exact
                        .insert(&*route.path, site)
                        .map_err(|error| RouteError { name: route.name.clone(), reason: error.to_string() })?;
                    // Two patterns that differ in case only are both there on purpose; the first stands for both.
                    let _ = table.folded.insert(fold_pattern(&route.path), site);
                    patterns.push(route.path.clone());
                    let ends_with_slash = route.path.len() > 1 && route.path.ends_with('/');
                    table.sites.push(Site {
                        candidates: Vec::new(),
                        allow: HeaderValue::from_static(""),
                        ends_with_slash,
                        is_literal: !route.path.contains('{'),
                    });
                    site
                }
            };
            table.sites[site].candidates.push(Candidate {
                methods: route.methods.clone(),
                headers: route.headers.clone(),
                route: index,
            });
        }
        for (site, pattern) in patterns.iter().enumerate() {
            if let Some(root) = pattern.find("{*").map(|at| &pattern[..at]) {
                // The rest may be empty. A route of its own for that path was there before, and stays.
                let _ = table.exact.insert(root, site);
                let _ = table.folded.insert(fold_pattern(root), site);
            }
        }
        for site in &mut table.sites {
            site.candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.headers.len()));
            site.allow = allow_header(&site.candidates);
        }
        Ok(table)
    }

    /// Finds the route of a path that [`super::judge`] has passed.
    pub(super) fn find(&self, path: &str, method: &Method, headers: &HeaderMap) -> Found<'_> {
        let Some(site) = self.site(path) else { return Found::Nothing };
        let mut found = Found::WrongMethod(&site.allow);
        for candidate in site.candidates.iter().filter(|candidate| candidate.takes_method(method)) {
            if candidate.takes_headers(headers) {
                return Found::Route(candidate.route);
            }
            found = Found::Nothing;
        }
        found
    }

    /// The routes of a path that take this method, whatever headers they ask for.
    pub(super) fn candidates(&self, path: &str, method: &Method) -> impl Iterator<Item = usize> + use<'_> {
        let method = method.clone();
        let all = self.site(path).map_or(&[][..], |site| &site.candidates);
        all.iter().filter(move |candidate| candidate.takes_method(&method)).map(|candidate| candidate.route)
    }

    /// The methods that a path's routes take, as `Allow` lists them; `None` when they take all, or there are none.
    pub(super) fn allow(&self, path: &str) -> Option<&HeaderValue> {
        let site = self.site(path)?;
        let takes_all = site.candidates.iter().any(|candidate| candidate.methods.is_empty());
        (!takes_all).then_some(&site.allow)
    }

    /// A path that an upstream may well read as another one is judged as that other one: many take `/calls/` for `/calls`
    /// and `/CALLS` or `/calls.` for `/calls`, and a catch-all route must not open what a stricter route guards.
    fn site(&self, path: &str) -> Option<&Site> {
        let literal = self.exact.at(path).ok().map(|found| *found.value);
        let site = match path.strip_suffix('/') {
            Some(bare) if !bare.is_empty() && !literal.is_some_and(|site| self.sites[site].ends_with_slash) => {
                self.exact.at(bare).ok().map(|found| *found.value).or(literal)
            }
            _ => literal,
        }?;
        // Two patterns that differ in that only are both there on purpose.
        if !self.sites[site].is_literal
            && let Some(folded) = folded(path)
        {
            let bare = folded.strip_suffix('/').filter(|bare| !bare.is_empty()).unwrap_or(&folded);
            let other = self.folded.at(bare).or_else(|_| self.folded.at(&folded)).ok().map(|found| *found.value);
            if other.is_some_and(|other| other != site) {
                return None;
            }
        }
        self.sites.get(site)
    }
}

/// A path as file systems of the forgiving kind take it: in lower case, without dots and blanks at the ends of its segments. `None`
/// when that is what it is.
fn folded(path: &str) -> Option<String> {
    let has_loose_end = |segment: &str| segment.ends_with('.') || segment.ends_with("%20");
    if !path.split('/').any(has_loose_end) {
        return path.bytes().any(|byte| byte.is_ascii_uppercase()).then(|| path.to_ascii_lowercase());
    }
    let mut folded = String::with_capacity(path.len());
    for (at, mut segment) in path.split('/').enumerate() {
        while let Some(rest) = segment.strip_suffix('.').or_else(|| segment.strip_suffix("%20")) {
            segment = rest;
        }
        if at > 0 {
            folded.push('/');
        }
        folded.push_str(segment);
    }
    folded.make_ascii_lowercase();
    Some(folded)
}

/// Lower case, but for the names in braces.
fn fold_pattern(pattern: &str) -> String {
    let mut in_braces = false;
    let fold = |character: char| {
        in_braces = (in_braces || character == '{') && character != '}';
        if in_braces { character } else { character.to_ascii_lowercase() }
    };
    pattern.chars().map(fold).collect()
}

fn allow_header(candidates: &[Candidate]) -> HeaderValue {
    let mut names: Vec<&str> = Vec::new();
    for method in candidates.iter().flat_map(|candidate| &candidate.methods) {
        names.push(method.as_str());
        if *method == Method::GET {
            names.push("HEAD");
        }
    }
    names.sort_unstable();
    names.dedup();
    // Method names are tokens, and tokens are header values.
    HeaderValue::from_str(&names.join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Table(Paths);

    impl Table {
        fn find(&self, path: &str, method: &Method) -> Found<'_> {
            self.0.find(path, method, &HeaderMap::new())
        }
    }

    fn table(routes: &[(&str, &[Method])]) -> Table {
        let routes: Vec<_> = routes
            .iter()
            .map(|(path, methods)| {
                Arc::new(config::Route { path: (*path).into(), methods: methods.to_vec(), ..config::Route::default() })
            })
            .collect();
        let indices: Vec<usize> = (0..routes.len()).collect();
        Table(Paths::new(&routes, &indices).unwrap())
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
        assert_eq!(table.find("/api/v1/calls", &Method::GET), Found::Route(0));
        assert_eq!(table.find("/api/v1/calls", &Method::HEAD), Found::Route(0));
        assert_eq!(table.find("/api/v1/calls", &Method::POST), Found::Route(1));
        assert_eq!(table.find("/api/v1/calls/17/stream", &Method::PATCH), Found::Route(2));
        assert_eq!(table.find("/api/v1/else", &Method::GET), Found::Route(3));
        assert_eq!(table.find("/api/v2/else", &Method::GET), Found::Nothing);
    }

    #[test]
    fn a_catch_all_takes_nothing_too_unless_another_route_does() {
        assert_eq!(calls().find("/api/v1/", &Method::GET), Found::Route(3));
        assert_eq!(calls().find("/api/v1", &Method::GET), Found::Nothing);
        let table = table(&[("/{*rest}", &[]), ("/", &[])]);
        assert_eq!(table.find("/", &Method::GET), Found::Route(1));
    }

    #[test]
    fn a_wrong_method_says_what_is_allowed() {
        let allow = HeaderValue::from_static("GET, HEAD, POST");
        assert_eq!(calls().find("/api/v1/calls", &Method::DELETE), Found::WrongMethod(&allow));
    }

    #[test]
    fn a_trailing_slash_does_not_slip_past_a_route_into_a_catch_all() {
        assert_eq!(calls().find("/api/v1/calls/", &Method::POST), Found::Route(1));
        assert_eq!(calls().find("/api/v1/calls/7/stream/", &Method::GET), Found::Route(2));
        assert_eq!(calls().find("/api/v1/calls/7/", &Method::GET), Found::Route(3));
    }

    #[test]
    fn a_route_that_ends_with_a_slash_is_itself() {
        let table = table(&[("/files", &[]), ("/files/", &[])]);
        assert_eq!(table.find("/files", &Method::GET), Found::Route(0));
        assert_eq!(table.find("/files/", &Method::GET), Found::Route(1));
    }

    #[test]
    fn another_case_does_not_slip_past_a_route_into_a_catch_all() {
        assert_eq!(calls().find("/api/v1/CALLS", &Method::POST), Found::Nothing);
        assert_eq!(calls().find("/api/v1/Calls/", &Method::POST), Found::Nothing);
        assert_eq!(calls().find("/api/v1/calls/AbC/stream", &Method::GET), Found::Route(2));
        assert_eq!(calls().find("/api/v1/calls/AbC/STREAM", &Method::GET), Found::Nothing);
        assert_eq!(calls().find("/api/v1/Files/X", &Method::GET), Found::Route(3));
    }
}
