//! Random tables of routes and random spellings of their paths, judged by a plain list of all that an upstream may make of a path.

use std::sync::Arc;

use http::{HeaderMap, Method};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::config::{Route, RouteAccess};
use crate::route::{RouteMatch, RouteTable, judge};

/// What an upstream does to a path beside adding or removing a slash at its end.
#[derive(Clone, Copy)]
struct Fold {
    lowers: bool,
    /// Full stops and blanks at the ends of segments.
    strips: bool,
    /// `%40`, which need not be an escape.
    decodes: bool,
}

impl Fold {
    fn all() -> impl Iterator<Item = Self> {
        (0..8).map(|bits| Self { lowers: bits & 1 != 0, strips: bits & 2 != 0, decodes: bits & 4 != 0 })
    }

    /// The names of parameters are in lower case already.
    fn of(self, text: &str) -> String {
        let mut text = text.to_owned();
        if self.decodes {
            text = text.replace("%40", "@");
        }
        if self.strips {
            text = text.split('/').map(stripped).collect::<Vec<_>>().join("/");
        }
        if self.lowers { text.to_lowercase() } else { text }
    }
}

fn stripped(segment: &str) -> &str {
    match segment.strip_suffix('.').or_else(|| segment.strip_suffix("%20")) {
        Some(shorter) => stripped(shorter),
        None => segment,
    }
}

/// A path with and without a slash at its end.
fn both_ends(path: &str) -> [String; 2] {
    match path.strip_suffix('/') {
        Some("") | None => [path.to_owned(), format!("{}/", path.trim_end_matches('/'))],
        Some(bare) => [path.to_owned(), bare.to_owned()],
    }
}

/// Whether a pattern matches a path, letter by letter.
fn matches(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (Some("{*rest}"), Some(_)) | (None, None) => return true,
            (Some(asked), Some(segment)) if takes(asked, segment) => {}
            _ => return false,
        }
    }
}

fn takes(asked: &str, segment: &str) -> bool {
    match asked.split_once("{id}") {
        Some((before, behind)) => {
            segment.len() > before.len() + behind.len() && segment.starts_with(before) && segment.ends_with(behind)
        }
        None => asked == segment,
    }
}

/// The larger, the more specific, of patterns that match one path.
fn specificity(pattern: &str) -> Vec<u8> {
    let mut ranks: Vec<u8> = (pattern.split('/').filter(|segment| !segment.is_empty()))
        .map(|segment| match segment {
            "{*rest}" => 0,
            "{id}" => 1,
            _ if segment.contains('{') => 2,
            _ => 3,
        })
        .collect();
    // To end is more specific than to go on with nothing.
    if ranks.last() != Some(&0) {
        ranks.push(4);
    }
    ranks
}

/// Whether some upstream may take the path for one that the pattern matches. Patterns may be spelled loosely too.
fn may_mean(pattern: &str, path: &str) -> bool {
    Fold::all().any(|fold| both_ends(&fold.of(path)).iter().any(|path| matches(&fold.of(pattern), path)))
}

fn asks_for_all_of(ours: &RouteAccess, theirs: &RouteAccess) -> bool {
    match (ours, theirs) {
        (_, RouteAccess::Public) => true,
        (RouteAccess::Public, _) => false,
        (RouteAccess::Token(ours), RouteAccess::Token(theirs)) => {
            theirs.iter().all(|permission| ours.contains(permission))
        }
    }
}

const TEXTS: [&str; 7] = ["a", "A", "b", "B.", "a%20", "@a", "%40a"];

fn pattern(with_text: &'static str) -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        4 => select(&TEXTS[..]).prop_map(str::to_owned),
        2 => Just("{id}".to_owned()),
        1 => Just(with_text.to_owned()),
    ];
    let end = select(&["", "/", "/{*rest}", "/{*rest}"][..]);
    (prop::collection::vec(segment, 0..=3), end).prop_map(|(segments, end)| {
        let path: String = segments.iter().map(|segment| format!("/{segment}")).collect();
        if path.is_empty() && end.is_empty() { "/".to_owned() } else { path + end }
    })
}

fn access() -> impl Strategy<Value = RouteAccess> {
    let token = |permissions: &[&str]| RouteAccess::Token(permissions.iter().map(|it| (*it).into()).collect());
    select(vec![
        RouteAccess::Public,
        RouteAccess::Public,
        token(&[]),
        token(&["one"]),
        token(&["two"]),
        token(&["one", "two"]),
    ])
}

/// Routes that can stand beside each other.
fn routes() -> impl Strategy<Value = Vec<Arc<Route>>> {
    // Text before and behind parameters at one place is ambiguous, and matchit takes only one of the two.
    let drawn = select(&["a{id}", "{id}b"][..])
        .prop_flat_map(|with_text| prop::collection::vec((pattern(with_text), access()), 1..8));
    drawn.prop_map(|drawn| {
        let mut routes: Vec<Arc<Route>> = Vec::new();
        for (path, access) in drawn {
            let is_known = routes.iter().any(|route| *route.path == path);
            routes.push(Arc::new(Route { path: path.into(), access, ..Route::default() }));
            if is_known || RouteTable::new(&routes).is_err() {
                routes.pop();
            }
        }
        routes
    })
}

/// What is made of one segment of a pattern, and whether a slash is added or removed behind it all.
#[derive(Debug, Clone)]
struct Request {
    pattern: Index,
    values: [&'static str; 5],
    /// Segments of the rest.
    more: usize,
    ends: [&'static str; 8],
    capitals: [bool; 8],
    turns_slash: bool,
}

fn request() -> impl Strategy<Value = Request> {
    let values = prop::array::uniform5(select(&["7", "a", "A", "b", "ab", "..."][..]));
    let ends = prop::array::uniform8(prop_oneof![8 => Just(""), 1 => Just("."), 1 => Just("%20")]);
    let capitals = prop::array::uniform8(prop::bool::weighted(0.1));
    (any::<Index>(), values, 0..3_usize, ends, capitals, any::<bool>()).prop_map(
        |(pattern, values, more, ends, capitals, turns_slash)| Request {
            pattern,
            values,
            more,
            ends,
            capitals,
            turns_slash,
        },
    )
}

impl Request {
    fn path(&self, routes: &[Arc<Route>]) -> String {
        let pattern = &self.pattern.get(routes).path;
        let fixed = pattern.strip_suffix("/{*rest}");
        let mut path: String = fixed.unwrap_or(pattern).to_owned();
        for value in &self.values[..3] {
            path = path.replacen("{id}", value, 1);
        }
        if fixed.is_some() {
            path.push('/');
            path.push_str(&self.values[3..3 + self.more].join("/"));
        }
        let mut segments: Vec<String> = path.split('/').map(str::to_owned).collect();
        for (at, segment) in segments.iter_mut().enumerate().filter(|(_, segment)| !segment.is_empty()) {
            if self.capitals[at] {
                *segment = segment.to_uppercase();
            }
            segment.push_str(self.ends[at]);
        }
        let path = segments.join("/");
        if self.turns_slash { both_ends(&path)[1].clone() } else { path }
    }
}

/// Judges where a path goes that [`judge`] has passed.
fn check(routes: &[Arc<Route>], path: &str) -> Result<(), TestCaseError> {
    let table = RouteTable::new(routes).unwrap();
    let found = match table.of_host("h").find(path, &Method::GET, &HeaderMap::new()) {
        RouteMatch::Route(index) => Some(&routes[index]),
        RouteMatch::WrongMethod(_) | RouteMatch::Nothing => None,
    };
    let candidates: Vec<_> = table.of_host("h").candidates(path, &Method::GET).map(|index| &routes[index]).collect();
    prop_assert_eq!(candidates.first().map(|route| &route.path), found.map(|route| &route.path));

    let more_specific = |than: &Arc<Route>| {
        let than = specificity(&than.path);
        routes.iter().filter(move |route| specificity(&route.path) > than && may_mean(&route.path, path))
    };
    let as_it_is =
        routes.iter().filter(|route| matches(&route.path, path)).max_by_key(|route| specificity(&route.path));
    if let Some(found) = found.filter(|found| found.access == RouteAccess::Public) {
        let guard = more_specific(found).find(|route| route.access != RouteAccess::Public);
        prop_assert!(guard.is_none(), "{path} is opened by {}, but may mean {guard:?}", found.path);
    }
    if let (Some(found), Some(exact)) = (found, as_it_is) {
        let asks = asks_for_all_of(&found.access, &exact.access);
        prop_assert!(asks, "{path} is {}, but goes to {}", exact.path, found.path);
    }
    // What can mean nothing else is found, but for what matchit misses: it tries one parameter with text behind it and no other.
    let is_spelled_well = path.split('/').all(|segment| stripped(segment) == segment);
    let is_missed = routes.iter().any(|route| route.path.contains("}b/"));
    if let Some(exact) = as_it_is.filter(|exact| is_spelled_well && !is_missed && more_specific(exact).next().is_none())
    {
        prop_assert_eq!(found.map(|route| &route.path), Some(&exact.path), "{}", path);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_spelling_opens_what_a_more_specific_route_guards(routes in routes(), request in request()) {
        let path = request.path(&routes);
        let judged = judge(&path).unwrap();
        prop_assume!(judged.forms.is_empty());
        check(&routes, &judged.matched)?;
    }
}
