//! Which paths and methods the admin listener knows, what each needs, and which function answers it: one table.

use std::pin::Pin;

use http::Method;

use super::body::BodyKind;
use super::console::ConsoleFile;
use super::error::ApiError;
use super::request::ApiRequest;
use super::response::AdminResponse;
use super::token_actions::operate;
use super::{
    audit, calls, configuration, console, events, health, import, limits, me, openapi, routes, status, token_actions,
    tokens, upstreams, usage,
};
use crate::config::Role;
use crate::tokens::Operation;

type ApiFuture<'a> = Pin<Box<dyn Future<Output = Result<AdminResponse, ApiError>> + Send + 'a>>;
type ApiHandler = for<'a> fn(ApiRequest<'a>) -> ApiFuture<'a>;

pub(super) struct ApiRoute {
    pub(super) method: Method,
    /// `{id}` is one segment.
    pub(super) path: &'static str,
    pub(super) access: RequiredAccess,
    pub(super) body: BodyKind,
    /// The names that its query may hold.
    pub(super) query: &'static [&'static str],
    pub(super) handler: ApiHandler,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequiredAccess {
    /// Everybody: probes come from machines that have no secret.
    Public,
    /// The role `read`, or everybody where `admin.public_metrics` is set.
    Metrics,
    Role(Role),
}

impl ApiRoute {
    const fn get(path: &'static str, access: RequiredAccess, handler: ApiHandler) -> Self {
        Self { method: Method::GET, path, access, body: BodyKind::Nothing, query: &[], handler }
    }

    const fn change(method: Method, path: &'static str, body: BodyKind, handler: ApiHandler) -> Self {
        Self { method, path, access: RequiredAccess::Role(Role::Write), body, query: &[], handler }
    }

    const fn post(path: &'static str, body: BodyKind, handler: ApiHandler) -> Self {
        Self::change(Method::POST, path, body, handler)
    }

    const fn with_query(mut self, query: &'static [&'static str]) -> Self {
        self.query = query;
        self
    }
}

const READ: RequiredAccess = RequiredAccess::Role(Role::Read);
/// A token with all its permissions takes less than 10 KiB.
const JSON: BodyKind = BodyKind::Json(64 << 10);
const OPTIONAL_JSON: BodyKind = BodyKind::OptionalJson(64 << 10);

/// HEAD comes with GET.
pub(super) static ROUTES: [ApiRoute; 29] = [
    ApiRoute::get("/livez", RequiredAccess::Public, |request| Box::pin(health::live(request))),
    ApiRoute::get("/readyz", RequiredAccess::Public, |request| Box::pin(health::ready(request))),
    ApiRoute::get("/metrics", RequiredAccess::Metrics, |request| Box::pin(health::metrics(request))),
    ApiRoute::get("/api/openapi.json", READ, |request| Box::pin(openapi::describe(request))),
    ApiRoute::get("/api/tokens", READ, |request| Box::pin(tokens::list(request))).with_query(&[
        "account",
        "name",
        "plan",
        "state",
        "permission",
        "after",
        "limit",
    ]),
    ApiRoute::post("/api/tokens", JSON, |request| Box::pin(tokens::create(request))),
    ApiRoute::post("/api/import", BodyKind::Json(4 << 20), |request| Box::pin(import::import(request))),
    ApiRoute::get("/api/tokens/{id}", READ, |request| Box::pin(tokens::show(request))),
    ApiRoute::change(Method::PATCH, "/api/tokens/{id}", JSON, |request| Box::pin(tokens::change(request))),
    ApiRoute::get("/api/tokens/{id}/usage", READ, |request| Box::pin(usage::show(request))).with_query(&["by"]),
    ApiRoute::get("/api/most-limited", READ, |request| Box::pin(usage::most_limited(request))).with_query(&["limit"]),
    ApiRoute::post("/api/tokens/{id}/rotate", OPTIONAL_JSON, |request| Box::pin(token_actions::rotate(request))),
    ApiRoute::post("/api/tokens/{id}/revoke", OPTIONAL_JSON, |request| Box::pin(operate(request, Operation::Revoke))),
    ApiRoute::post("/api/tokens/{id}/enable", OPTIONAL_JSON, |request| Box::pin(operate(request, Operation::Enable))),
    ApiRoute::post("/api/tokens/{id}/disable", OPTIONAL_JSON, |request| Box::pin(operate(request, Operation::Disable))),
    ApiRoute::post("/api/accounts/revoke", JSON, |request| Box::pin(token_actions::revoke_account(request))),
    ApiRoute::get("/api/audit", READ, |request| Box::pin(audit::list(request)))
        .with_query(&["token", "account", "by", "action", "since", "before", "limit"]),
    ApiRoute::get("/api/upstreams", READ, |request| Box::pin(upstreams::list(request))),
    ApiRoute::get("/api/calls", READ, |request| Box::pin(calls::list(request)))
        .with_query(&["token", "account", "route", "upstream", "all", "after", "limit"]),
    ApiRoute::change(Method::DELETE, "/api/calls/{id}", BodyKind::Nothing, |request| Box::pin(calls::end(request)))
        .with_query(&["reason"]),
    ApiRoute::get("/status", READ, |request| Box::pin(status::show(request))),
    ApiRoute::get("/api/events", READ, |request| Box::pin(events::listen(request))),
    ApiRoute::get("/api/routes", READ, |request| Box::pin(routes::list(request))),
    ApiRoute::get("/api/configuration", READ, |request| Box::pin(configuration::show(request))),
    ApiRoute::get("/api/me", READ, |request| Box::pin(me::show(request))),
    ApiRoute::post("/api/reload", BodyKind::Nothing, |request| Box::pin(configuration::reload(request))),
    ApiRoute::change(Method::PUT, "/api/log-level", JSON, |request| Box::pin(configuration::set_log_level(request))),
    ApiRoute::get("/api/limits/{id}", READ, |request| Box::pin(limits::show(request))),
    ApiRoute::change(Method::DELETE, "/api/limits/{id}", BodyKind::Nothing, |request| Box::pin(limits::reset(request))),
];

/// What a method and a path lead to.
pub(super) enum RouteLookup<'p> {
    /// A route, and the `{id}` in the path (else empty).
    Found(&'static ApiRoute, &'p str),
    /// The console's page or one of its assets.
    Console(&'static ConsoleFile),
    /// The path takes these methods.
    OtherMethod(String),
    UnknownPath,
}

pub(super) fn find<'p>(method: &Method, path: &'p str) -> RouteLookup<'p> {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    let here: Vec<_> = ROUTES.iter().filter_map(|route| id_in(route.path, path).map(|id| (route, id))).collect();
    if let Some((route, id)) = here.iter().find(|(route, _)| route.method == *method) {
        return RouteLookup::Found(route, id);
    }
    if here.is_empty() {
        return console::find(path).map_or(RouteLookup::UnknownPath, RouteLookup::Console);
    }
    let mut methods: Vec<&str> = here.iter().map(|(route, _)| route.method.as_str()).collect();
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.sort_unstable();
    RouteLookup::OtherMethod(methods.join(", "))
}

/// The `{id}` in a path that matches the pattern; empty if the pattern has none.
fn id_in<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let Some((before, after)) = pattern.split_once("{id}") else {
        return (pattern == path).then_some("");
    };
    let id = path.strip_prefix(before)?.strip_suffix(after)?;
    (!id.is_empty() && !id.contains('/')).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_methods_lead_to_their_route() {
        let found = |method: Method, path: &str| match find(&method, path) {
            RouteLookup::Found(route, id) => format!("{} {} {id}", route.method, route.path),
            RouteLookup::Console(_) => "console".to_owned(),
            RouteLookup::OtherMethod(allow) => allow,
            RouteLookup::UnknownPath => "-".to_owned(),
        };
        assert_eq!(found(Method::GET, "/metrics"), "GET /metrics ");
        assert_eq!(found(Method::HEAD, "/readyz"), "GET /readyz ");
        assert_eq!(found(Method::POST, "/metrics"), "GET, HEAD");
        assert_eq!(found(Method::DELETE, "/api/limits/a.b-c_d"), "DELETE /api/limits/{id} a.b-c_d");
        assert_eq!(found(Method::PUT, "/api/limits/x"), "DELETE, GET, HEAD");
        assert_eq!(found(Method::GET, "/"), "console");
        for nothing in [
            "",
            "/assets/",
            "/metrics/",
            "//metrics",
            "/api/limits",
            "/api/limits/",
            "/api/limits/a/b",
            "/API/limits/a",
        ] {
            assert_eq!(found(Method::GET, nothing), "-", "{nothing}");
        }
    }
}
