//! Hosts and headers choose among routes.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};

use crate::config::HostPattern;
use crate::config::{HeaderMatch, Route};
use crate::route::{RouteMatch, RouteTable};

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
        RouteMatch::Route(route) => Some(route),
        RouteMatch::Nothing | RouteMatch::WrongMethod(_) => None,
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
