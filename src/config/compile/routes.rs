//! `routes`: path and methods → upstream, and who may.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};

use super::answers::{self, Way};
use super::destinations;
use super::limits::{check_cost, route_limits};
use super::matching;
use super::mirror::mirror;
use super::paths::{Asked, Patterns, check, foreign};
use super::plans::PlansByName;
use super::upstreams::Upstreams;
use crate::config::matching::HostPattern;
use crate::config::model::{Access, CallLimits, PathForms, Route};
use crate::config::nearest::nearest;
use crate::config::plan::RouteLimits;
use crate::config::reader::{Field, Section};
use crate::config::split::Split;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
/// A call whose both ends have been silent for so long is dead: WebSocket pings and silence frames come far more often.
const CALL_IDLE: Duration = Duration::from_secs(300);
/// A phone in a lift is back before; a load balancer keeps a dead connection for far longer.
const PING_PATIENCE: Duration = Duration::from_secs(20);
const KNOWN: &[&str] = &[
    "name",
    "host",
    "path",
    "methods",
    "headers",
    "strip_prefix",
    "rewrite",
    "permission",
    "auth",
    "cost",
    "limits",
    "upstream",
    "split_by",
    "mirror",
    "forward_credentials",
    "allow_path_forms",
    "max_body",
    "first_byte_timeout",
    "idle_timeout",
    "timeout",
    "request_headers",
    "response_headers",
    "cors",
    "call",
];
/// The methods that a misspelt one is compared with.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// All routes that are sound; the others were complained about.
pub(super) fn routes(file: &Section<'_>, plans: Option<&PlansByName>, upstreams: &Upstreams<'_>) -> Vec<Arc<Route>> {
    let remedy = "for example `routes: [{ path: \"/api/v1/{*rest}\", upstream: api }]`";
    let Some(list) = file.require("routes", remedy) else { return Vec::new() };
    let items = list.items();
    if items.is_empty() && list.is_list() {
        list.error(format!("is empty, so nothing could be reached ({remedy})"));
    }
    let mut all = All { plans, upstreams, patterns: HashMap::new(), names: HashMap::new() };
    let mut routes: Vec<_> = items.iter().enumerate().map(|(index, field)| all.route(index, field)).collect();
    judge_headers(&mut routes);
    if !routes.is_empty() && routes.iter().all(Option::is_some) {
        let leads_to = |route: &Route| {
            let mirror = route.mirror.as_ref().map(|mirror| mirror.upstream);
            route.upstream.upstreams().chain(mirror).collect::<Vec<_>>()
        };
        let used: HashSet<usize> = routes.iter().flatten().flat_map(leads_to).collect();
        for (index, field) in upstreams.fields.iter().enumerate() {
            if !used.contains(&index) {
                field.warn("no route uses this upstream (remove it, or name it in a route)");
            }
        }
    }
    routes.into_iter().flatten().map(Arc::new).collect()
}

/// Headers that routes ask for tell all of them apart: what lacks one for this route must not have it for the upstream.
fn judge_headers(routes: &mut [Option<Route>]) {
    let asked_for = routes.iter().flatten().flat_map(|route| &route.headers);
    let mut names: Vec<HeaderName> = asked_for.map(|asked| asked.name.clone()).collect();
    names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    if names.is_empty() {
        return;
    }
    for route in routes.iter_mut().flatten() {
        Arc::make_mut(&mut route.request_headers).judged = names.clone();
    }
}

/// What routes must share without clashing.
struct All<'u> {
    plans: Option<&'u PlansByName>,
    upstreams: &'u Upstreams<'u>,
    /// Per host; under `None`, what is for all others.
    patterns: HashMap<Option<HostPattern>, Patterns>,
    /// Per name, the route that has it.
    names: HashMap<String, usize>,
}

impl All<'_> {
    fn route(&mut self, index: usize, field: &Field<'_>) -> Option<Route> {
        let s = field.section(KNOWN);
        let allowed_forms = forms(&s);
        let methods = methods(&s);
        let (hosts, headers) = (matching::hosts(&s), matching::headers(&s));
        let path = self.path(&s, allowed_forms);
        let clashes = match (&path, &methods) {
            (Some(path), Some(methods)) => {
                let asked = Asked { methods: methods.clone(), headers: headers.clone() };
                self.clashes(index, &s, path, &hosts, &asked)
            }
            _ => true,
        };
        let rewrite = matching::rewrite(&s, path.as_deref(), allowed_forms);
        let full = path.as_deref().map(|path| hosts.first().map_or_else(String::new, ToString::to_string) + path);
        let name = self.name(index, &s, full.as_deref(), methods.as_deref(), clashes);
        let upstream = destinations::split(&s, self.upstreams);
        let mirror = mirror(&s, upstream.as_ref(), self.upstreams);
        let access = access(&s);
        let limits = self.limits(&s, name.as_deref().unwrap_or_default(), &access);
        let cost = self.cost(&s, &access, limits.as_ref());
        let sound = path.is_some() && upstream.is_some();
        let upstream = upstream.unwrap_or_else(|| Split::to(0));
        let route = Route {
            name: name.unwrap_or_default().into(),
            hosts,
            path: path.as_deref().unwrap_or_default().into(),
            methods: methods.unwrap_or_default(),
            headers,
            rewrite,
            access,
            cost,
            limits,
            upstream,
            mirror,
            forward_credentials: s.or("forward_credentials", false, Field::flag),
            allowed_forms,
            max_body: s.or("max_body", 1 << 30, |f| f.size(0..=1 << 40)),
            first_byte_timeout: s
                .or("first_byte_timeout", None, |f| f.duration(Duration::from_millis(10)..=HOUR).map(Some)),
            idle_timeout: s.or("idle_timeout", None, |f| f.duration(Duration::from_millis(100)..=DAY).map(Some)),
            timeout: s.or("timeout", None, |f| f.duration_or_none(Duration::from_millis(10)..=DAY)),
            request_headers: answers::edits(&s.field_of("request_headers"), Way::Upstream).into(),
            response_headers: answers::edits(&s.field_of("response_headers"), Way::Client).into(),
            cors: answers::cors(&s),
            call: call_limits(&s),
        };
        sound.then_some(route)
    }

    fn path(&mut self, s: &Section<'_>, forms: PathForms) -> Option<String> {
        let field = s.require("path", "for example /api/v1/calls, /api/v1/calls/{id} or /api/v1/{*rest}")?;
        let path = field.text()?;
        if let Some(told) = foreign(&path) {
            field.warn(told);
        }
        match check(&path, forms) {
            Ok(()) => Some(path),
            Err(message) => {
                field.error(message);
                None
            }
        }
    }

    /// Puts a path beside those of the same hosts, and complains when they stand in each other's way.
    fn clashes(&mut self, index: usize, s: &Section<'_>, path: &str, hosts: &[HostPattern], asked: &Asked) -> bool {
        let hosts: Vec<_> = if hosts.is_empty() { vec![None] } else { hosts.iter().cloned().map(Some).collect() };
        let clash = hosts.into_iter().find_map(|host| {
            let patterns = self.patterns.entry(host).or_default();
            patterns.add(index, path, asked).err()
        });
        if let Some(message) = &clash {
            s.field_of("path").error(message);
        }
        clash.is_some()
    }

    /// The name that was given, or one made of methods, host and path, such as `GET,POST /api/v1/calls`: it holds a slash, so it
    /// can't be the same as a given one. `path` begins with the first host, if there is one.
    fn name(
        &mut self,
        index: usize,
        s: &Section<'_>,
        path: Option<&str>,
        methods: Option<&[Method]>,
        clashes: bool,
    ) -> Option<String> {
        let Some(field) = s.get("name") else {
            let methods: Vec<&str> = methods?.iter().map(Method::as_str).collect();
            let name = if methods.is_empty() { path?.to_owned() } else { format!("{} {}", methods.join(","), path?) };
            if let Some(other) = self.names.insert(name.clone(), index).filter(|_| !clashes) {
                s.field_of("path").error(format!("is told from routes[{other}] by headers alone (give it a `name`)"));
            }
            return Some(name);
        };
        let name = field.name(64, "A-Z a-z 0-9 _ . : -", |b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b))?;
        match self.names.get(&name) {
            Some(other) => field.error(format!("routes[{other}] is called {} too (names are unique)", field.shown())),
            None => {
                self.names.insert(name.clone(), index);
            }
        }
        Some(name)
    }

    fn limits(&self, s: &Section<'_>, route: &str, access: &Access) -> Option<RouteLimits> {
        let field = s.get("limits")?;
        if *access == Access::Public {
            field.error(
                "count the requests of each token, and a public route asks for none (remove them, or `auth: none`)",
            );
        }
        route_limits(route, &field, self.plans)
    }

    fn cost(&self, s: &Section<'_>, access: &Access, limits: Option<&RouteLimits>) -> u32 {
        let Some(field) = s.get("cost") else { return 1 };
        let cost = field.number(1..=1_000).unwrap_or(1);
        match (access, self.plans) {
            (Access::Public, _) => {
                field.error("has no meaning on a public route, which no limit guards (remove it, or `auth: none`)");
            }
            (Access::Token(_), Some(plans)) => check_cost(cost, &field, limits, plans),
            (Access::Token(_), None) => {}
        }
        cost
    }
}

/// `None` when one of them was complained about: then nothing is said about clashes.
fn methods(s: &Section<'_>) -> Option<Vec<Method>> {
    let Some(field) = s.get("methods") else { return Some(Vec::new()) };
    let items = field.one_or_many();
    if items.is_empty() {
        if field.is_list() {
            field.error("is empty (name at least one, or remove the key to take all)");
        }
        return None;
    }
    let mut methods = Vec::with_capacity(items.len());
    let mut good = true;
    for item in items {
        let method = method(&item);
        good &= method.is_some();
        if let Some(method) = method {
            if methods.contains(&method) {
                item.error(format!("{method} is given twice (keep one)"));
                good = false;
            }
            methods.push(method);
        }
    }
    good.then_some(methods)
}

fn method(field: &Field<'_>) -> Option<Method> {
    let text = field.text()?;
    let upper = text.to_ascii_uppercase();
    let problem = if matches!(upper.as_str(), "CONNECT" | "TRACE") {
        format!("{upper} is never forwarded (remove it)")
    } else if text != upper {
        let known = METHODS.iter().find(|method| **method == upper);
        let remedy = known.map_or_else(|| "for example GET".to_owned(), |method| format!("write {method}"));
        format!("methods are written in capitals, not {} ({remedy})", field.shown())
    } else if let Some(near) = nearest(&text, METHODS).filter(|near| *near != text) {
        format!("no method is called {} (did you mean \"{near}\"?)", field.shown())
    } else if !text.is_empty() && text.len() <= 32 && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
        match text.parse() {
            Ok(method) => return Some(method),
            Err(_) => format!("is not the name of a method: {}", field.shown()),
        }
    } else {
        format!("must be the name of a method (for example GET), not {}", field.shown())
    };
    field.error(problem);
    None
}

fn call_limits(s: &Section<'_>) -> CallLimits {
    let call = s.field_of("call").section(&["max_duration", "idle_timeout", "ping", "ping_timeout"]);
    let ping = call.or("ping", None, |f| f.duration_or_none(SECOND..=HOUR));
    if ping.is_none() && call.get("ping").is_none() && call.get("ping_timeout").is_some() {
        call.field_of("ping_timeout").error("has no meaning without `ping` (add `ping: 30s`, or remove it)");
    }
    CallLimits {
        max_duration: call.or("max_duration", None, |f| f.duration_or_none(SECOND..=30 * DAY)),
        idle_timeout: call.or("idle_timeout", Some(CALL_IDLE), |f| f.duration_or_none(SECOND..=DAY)),
        ping,
        ping_timeout: call.or("ping_timeout", PING_PATIENCE, |f| f.duration(SECOND..=HOUR)),
    }
}

fn forms(s: &Section<'_>) -> PathForms {
    let Some(field) = s.get("allow_path_forms") else { return PathForms::default() };
    let chosen = field.one_or_many().into_iter().filter_map(|form| form.choice(&PathForms::NAMES));
    chosen.fold(PathForms::default(), PathForms::with)
}

fn access(s: &Section<'_>) -> Access {
    let public = s.or("auth", false, |f| f.choice(&[("token", false), ("none", true)]));
    let mut permissions: Vec<Arc<str>> = Vec::new();
    if let Some(field) = s.get("permission") {
        let items = field.one_or_many();
        if items.is_empty() && field.is_list() {
            field.error("is empty (name at least one, or remove the key to ask for a good token only)");
        }
        for item in items {
            let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b":_.*-".contains(&b);
            permissions.extend(item.name(64, "a-z 0-9 : _ . * -", allowed).map(Arc::from));
        }
        if public {
            field.error("can't be asked for on a public route (remove it, or `auth: none`)");
        }
    }
    if public { Access::Public } else { Access::Token(permissions) }
}
