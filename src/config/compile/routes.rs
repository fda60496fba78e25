//! `routes`: path and methods → upstream, and the permission to use it.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};

use super::answers::{EditedMessage, cors, edits};
use super::destinations::{mirror, split};
use super::log::success;
use super::matching;
use super::paths::{Conditions, Patterns, check, foreign};
use super::plans::{check_cost, route_limits};
use super::upstreams::UpstreamTable;
use crate::config::units::{DAY, HOUR, MILLISECOND, SECOND};
use crate::config::{
    CallLimits, Field, HostPattern, LogShare, PathForms, PlansByName, Route, RouteAccess, RouteLimits, Section, Split,
    UploadBounds, nearest,
};

/// A call that is silent on both ends for so long is dead: WebSocket pings and silence frames come far more often.
const CALL_IDLE: Duration = Duration::from_secs(300);
/// A phone that lost its network in a lift is back before; a load balancer keeps a dead connection for far longer.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes a second of an upload. GPRS, the slowest network of phones, has more than twice as many.
const MIN_RATE: u64 = 500;
/// The methods that a misspelt one is compared with.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// All routes that can be used; the others were reported.
pub(super) fn routes(
    file: &Section<'_>,
    plans: Option<&PlansByName>,
    upstreams: &UpstreamTable<'_>,
    log_success: LogShare,
) -> Vec<Arc<Route>> {
    let remedy = "for example `routes: [{ path: \"/api/v1/{*rest}\", upstream: api }]`";
    let Some(list) = file.require("routes", remedy) else { return Vec::new() };
    let items = list.some_items(remedy);
    let mut compiler = RouteCompiler { plans, upstreams, log_success, patterns: HashMap::new(), names: HashMap::new() };
    let mut routes: Vec<_> =
        items.iter().enumerate().filter_map(|(index, field)| compiler.route(index, field)).collect();
    add_matched_headers(&mut routes);
    if !items.is_empty() && routes.len() == items.len() {
        let mirrors = routes.iter().filter_map(|route| route.mirror.as_ref()).map(|mirror| mirror.upstream);
        let used: HashSet<usize> = routes.iter().flat_map(|route| route.upstream.upstreams()).chain(mirrors).collect();
        for (_, field) in upstreams.fields.iter().enumerate().filter(|(index, _)| !used.contains(index)) {
            field.warn("no route uses this upstream (remove it, or name it in a route)");
        }
    }
    routes.into_iter().map(Arc::new).collect()
}

/// Headers that some route matches by select among all routes: a request that lacks one for Callgate must not have it for the
/// upstream.
fn add_matched_headers(routes: &mut [Route]) {
    let names = routes.iter().flat_map(|route| &route.headers).map(|header| header.name.clone());
    let mut names: Vec<HeaderName> = names.collect();
    names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    for route in routes.iter_mut().filter(|_| !names.is_empty()) {
        Arc::make_mut(&mut route.request_headers).matched = names.clone();
    }
}

/// What routes share, and where they can clash.
struct RouteCompiler<'u> {
    plans: Option<&'u PlansByName>,
    upstreams: &'u UpstreamTable<'u>,
    /// For routes without one of their own.
    log_success: LogShare,
    /// Per host; under `None`, for all hosts that no route names.
    patterns: HashMap<Option<HostPattern>, Patterns>,
    /// Per name, the route that has it.
    names: HashMap<String, usize>,
}

impl RouteCompiler<'_> {
    /// `None` if it can't be used, which is reported.
    fn route(&mut self, index: usize, field: &Field<'_>) -> Option<Route> {
        let s = field.section();
        let name = s.get("name");
        let path = s.require("path", "for example /api/v1/calls, /api/v1/calls/{id} or /api/v1/{*rest}");
        let hosts = matching::hosts(&s);
        let methods = methods(&s);
        let headers = matching::headers(&s);
        let allowed_forms = allowed_forms(&s);
        let path = path.and_then(|field| path_pattern(&field, allowed_forms));
        let rewrite = matching::rewrite(&s, path.as_deref(), allowed_forms);
        let clashes = match (&path, &hosts, &methods) {
            (Some(path), Some(hosts), Some(methods)) => {
                let conditions = Conditions { methods: methods.clone(), headers: headers.clone() };
                self.clashes(index, &s, path, hosts, &conditions)
            }
            _ => true,
        };
        let hosts = hosts.unwrap_or_default();
        let name = match name {
            Some(field) => self.name(index, &field),
            None => self.default_name(index, &s, &hosts, path.as_deref(), methods.as_deref(), clashes),
        };
        let access = access(&s);
        let cost_field = s.get("cost");
        let limits = self.limits(&s, name.as_deref().unwrap_or_default(), &access);
        let upstream = split(&s, self.upstreams);
        let mirror = mirror(&s, upstream.as_ref(), self.upstreams);
        let route = Route {
            name: name.unwrap_or_default().into(),
            hosts,
            path: path.as_deref().unwrap_or_default().into(),
            methods: methods.unwrap_or_default(),
            headers,
            rewrite,
            cost: cost_field.map_or(1, |field| self.cost(&field, &access, limits.as_ref())),
            access,
            limits,
            upstream: upstream.clone().unwrap_or_else(|| Split::to(0)),
            mirror,
            forward_credentials: s.or("forward_credentials", false, Field::flag),
            allowed_forms,
            max_body: s.or("max_body", 1 << 30, |f| f.size(0..=1 << 40)),
            upload: UploadBounds {
                min_rate: s.or("min_upload_rate", NonZeroU64::new(MIN_RATE), |f| {
                    f.or_none(|f| f.size(1..=1 << 30)).map(|rate| rate.and_then(NonZeroU64::new))
                }),
                timeout: s.or("body_timeout", Some(4 * HOUR), |f| f.or_none(|f| f.duration(SECOND..=7 * DAY))),
            },
            first_byte_timeout: s.optional("first_byte_timeout", |f| f.duration(10 * MILLISECOND..=HOUR)),
            idle_timeout: s.optional("idle_timeout", |f| f.duration(100 * MILLISECOND..=DAY)),
            timeout: s.or("timeout", None, |f| f.or_none(|f| f.duration(10 * MILLISECOND..=DAY))),
            request_headers: edits(&s.field_of("request_headers"), EditedMessage::Request).into(),
            response_headers: edits(&s.field_of("response_headers"), EditedMessage::Response).into(),
            cors: cors(&s),
            call: call_limits(&s.field_of("call")),
            log_success: success(&s.field_of("log").section()).unwrap_or(self.log_success),
        };
        (path.is_some() && upstream.is_some()).then_some(route)
    }

    /// Adds a path to those of the same hosts; reports a clash.
    fn clashes(
        &mut self,
        index: usize,
        s: &Section<'_>,
        path: &str,
        hosts: &[HostPattern],
        conditions: &Conditions,
    ) -> bool {
        let hosts: Vec<_> = if hosts.is_empty() { vec![None] } else { hosts.iter().cloned().map(Some).collect() };
        let add = |host| self.patterns.entry(host).or_default().add(index, path, conditions);
        let added = hosts.into_iter().try_for_each(add);
        s.field_of("path").accept(added).is_none()
    }

    /// The name that the file gives.
    fn name(&mut self, index: usize, field: &Field<'_>) -> Option<String> {
        let name = field.name(64, "A-Z a-z 0-9 _ . : -")?;
        match self.names.get(&name) {
            Some(other) => field.error(format!("routes[{other}] is called {} too (names are unique)", field.shown())),
            None => {
                self.names.insert(name.clone(), index);
            }
        }
        Some(name)
    }

    /// A name made of methods, the first host and the path, such as `GET,POST /api/v1/calls`. It has a slash, so it can't equal one
    /// that a file gives.
    fn default_name(
        &mut self,
        index: usize,
        s: &Section<'_>,
        hosts: &[HostPattern],
        path: Option<&str>,
        methods: Option<&[Method]>,
        clashes: bool,
    ) -> Option<String> {
        let methods: Vec<&str> = methods?.iter().map(Method::as_str).collect();
        let space = if methods.is_empty() { "" } else { " " };
        let host = hosts.first().map_or_else(String::new, ToString::to_string);
        let name = format!("{}{space}{host}{}", methods.join(","), path?);
        if let Some(other) = self.names.insert(name.clone(), index).filter(|_| !clashes) {
            s.field_of("path").error(format!("differs from routes[{other}] by headers alone (give it a `name`)"));
        }
        Some(name)
    }

    fn limits(&self, s: &Section<'_>, route: &str, access: &RouteAccess) -> Option<RouteLimits> {
        let field = s.get("limits")?;
        if *access == RouteAccess::Public {
            field.error(
                "count the requests of each token, and a public route needs none (remove them, or `auth: none`)",
            );
        }
        route_limits(route, &field, self.plans)
    }

    fn cost(&self, field: &Field<'_>, access: &RouteAccess, limits: Option<&RouteLimits>) -> u32 {
        let cost = field.number(1..=1_000).unwrap_or(1);
        match (access, self.plans) {
            (RouteAccess::Public, _) => {
                field.error("has no meaning on a public route, which has no limits (remove it, or `auth: none`)");
            }
            (RouteAccess::Token(_), Some(plans)) => check_cost(cost, field, limits, plans),
            (RouteAccess::Token(_), None) => {}
        }
        cost
    }
}

fn path_pattern(field: &Field<'_>, allowed: PathForms) -> Option<String> {
    let path = field.text()?;
    if let Some(warning) = foreign(&path) {
        field.warn(warning);
    }
    field.accept(check(&path, allowed).map(|()| path))
}

/// No method means all. `None` if one of them was reported: then nothing is said about clashes.
fn methods(s: &Section<'_>) -> Option<Vec<Method>> {
    let Some(field) = s.get("methods") else { return Some(Vec::new()) };
    field.one_or_more_different("name at least one, or remove the key to take all", method)
}

fn method(field: &Field<'_>) -> Option<Method> {
    let text = field.text()?;
    let upper = text.to_ascii_uppercase();
    let is_name = !text.is_empty() && text.len() <= 32 && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
    let method = if matches!(upper.as_str(), "CONNECT" | "TRACE") {
        Err(format!("{upper} is never forwarded (remove it)"))
    } else if text != upper {
        let known = METHODS.iter().find(|method| **method == upper);
        let remedy = known.map_or_else(|| "for example GET".to_owned(), |method| format!("write {method}"));
        Err(format!("methods are written in capitals, not {} ({remedy})", field.shown()))
    } else if let Some(near) = nearest(&text, METHODS).filter(|near| *near != text) {
        Err(format!("no method is called {} (did you mean \"{near}\"?)", field.shown()))
    } else {
        let method = text.parse().ok().filter(|_| is_name);
        method.ok_or_else(|| format!("must be the name of a method (for example GET), not {}", field.shown()))
    };
    field.accept(method)
}

fn call_limits(field: &Field<'_>) -> CallLimits {
    let s = field.section();
    let limits = CallLimits {
        counted: s.or("counted", true, Field::flag),
        max_duration: s.or("max_duration", None, |f| f.or_none(|f| f.duration(SECOND..=30 * DAY))),
        idle_timeout: s.or("idle_timeout", Some(CALL_IDLE), |f| f.or_none(|f| f.duration(SECOND..=DAY))),
        ping: s.or("ping", None, |f| f.or_none(|f| f.duration(SECOND..=HOUR))),
        ping_timeout: s.or("ping_timeout", PING_TIMEOUT, |f| f.duration(SECOND..=HOUR)),
    };
    if s.get("ping").is_none() && s.get("ping_timeout").is_some() {
        s.field_of("ping_timeout").error("has no meaning without `ping` (add `ping: 30s`, or remove it)");
    }
    limits
}

fn allowed_forms(s: &Section<'_>) -> PathForms {
    let Some(field) = s.get("allow_path_forms") else { return PathForms::default() };
    let chosen = field.one_or_many().into_iter().filter_map(|form| form.choice(&PathForms::NAMES));
    chosen.fold(PathForms::default(), PathForms::with)
}

fn access(s: &Section<'_>) -> RouteAccess {
    let field = s.get("permission");
    let public = s.or("auth", false, |f| f.choice(&[("token", false), ("none", true)]));
    if let Some(field) = field.as_ref().filter(|_| public) {
        field.error("can't be set on a public route (remove it, or `auth: none`)");
    }
    let remedy = "name at least one, or remove the key to accept any valid token";
    let items = field.map(|field| field.one_or_more(remedy)).unwrap_or_default();
    let permissions = items.iter().filter_map(|item| item.name(64, "a-z 0-9 : _ . * -")).map(Arc::from).collect();
    if public { RouteAccess::Public } else { RouteAccess::Token(permissions) }
}
