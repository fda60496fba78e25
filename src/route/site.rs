//! The routes that share a path pattern: which of them takes a request, and which pattern's routes ask for more.

use std::cmp::Reverse;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};

use crate::config::{Route, RouteAccess};

use super::route_match::RouteMatch;

/// One path pattern and the routes that share it.
pub(super) struct Site {
    /// Those that ask for more headers come first.
    candidates: Vec<Candidate>,
    allow: HeaderValue,
    /// The pattern has no parameters: a path that matches it is spelled like it.
    pub(super) is_literal: bool,
}

impl Site {
    pub(super) fn new(is_literal: bool) -> Self {
        Self { candidates: Vec::new(), allow: HeaderValue::from_static(""), is_literal }
    }

    /// Adds the route with this index.
    pub(super) fn add(&mut self, index: usize, route: &Arc<Route>) {
        self.candidates.push(Candidate { index, route: route.clone() });
        self.candidates.sort_by_key(|candidate| Reverse(candidate.route.headers.len()));
        self.allow = allow_header(&self.candidates);
    }

    pub(super) fn find(&self, method: &Method, headers: &HeaderMap) -> RouteMatch<'_> {
        let mut found = RouteMatch::WrongMethod(&self.allow);
        for candidate in self.that_take(method) {
            if candidate.takes_headers(headers) {
                return RouteMatch::Route(candidate.index);
            }
            found = RouteMatch::Nothing;
        }
        found
    }

    /// The routes that take this method.
    pub(super) fn routes(&self, method: &Method) -> impl Iterator<Item = usize> {
        self.that_take(method).map(|candidate| candidate.index)
    }

    /// The methods that the routes take; `None` when they take all.
    pub(super) fn allow(&self) -> Option<&HeaderValue> {
        let takes_all = self.candidates.iter().any(|candidate| candidate.route.methods.is_empty());
        (!takes_all).then_some(&self.allow)
    }

    /// Each route that takes this method asks for all that each such route of the other pattern asks for.
    pub(super) fn is_as_strict_as(&self, other: &Self, method: &Method) -> bool {
        self.that_take(method).all(|ours| other.that_take(method).all(|theirs| ours.is_as_strict_as(theirs)))
    }

    fn that_take(&self, method: &Method) -> impl Iterator<Item = &Candidate> {
        self.candidates.iter().filter(move |candidate| candidate.takes_method(method))
    }
}

/// A route and its index.
struct Candidate {
    index: usize,
    route: Arc<Route>,
}

impl Candidate {
    fn takes_method(&self, method: &Method) -> bool {
        let methods = &self.route.methods;
        methods.is_empty() || methods.contains(method) || (*method == Method::HEAD && methods.contains(&Method::GET))
    }

    fn takes_headers(&self, headers: &HeaderMap) -> bool {
        self.route.headers.iter().all(|asked| match &asked.value {
            Some(value) => headers.get_all(&asked.name).iter().any(|line| line == value),
            None => headers.contains_key(&asked.name),
        })
    }

    fn is_as_strict_as(&self, other: &Self) -> bool {
        match (&self.route.access, &other.route.access) {
            (_, RouteAccess::Public) => true,
            (RouteAccess::Public, RouteAccess::Token(_)) => false,
            (RouteAccess::Token(ours), RouteAccess::Token(theirs)) => {
                theirs.iter().all(|permission| ours.contains(permission))
            }
        }
    }
}

fn allow_header(candidates: &[Candidate]) -> HeaderValue {
    let mut names: Vec<&str> = Vec::new();
    for method in candidates.iter().flat_map(|candidate| &candidate.route.methods) {
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
