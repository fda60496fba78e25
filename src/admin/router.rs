//! Which paths and methods the admin listener knows, what each asks of the caller, and what it does: one table.

use http::Method;

use crate::config::Role;

/// One entry of the table.
pub(super) struct Endpoint {
    pub(super) method: Method,
    /// `{id}` stands for one segment.
    pub(super) path: &'static str,
    pub(super) needs: Needs,
    /// The body it takes.
    pub(super) takes: Takes,
    /// The names that its query may hold.
    pub(super) query: &'static [&'static str],
    pub(super) act: Act,
}

/// What a caller must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Anybody: probes come from machines that have no secret.
    Nothing,
    /// Who may read metrics: those with the role `read`, or everybody where it is so configured.
    Metrics,
    /// Who has this role.
    Role(Role),
}

/// What body an endpoint takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// None; what comes all the same is not looked at.
    Nothing,
    /// JSON of at most so many bytes.
    Json(usize),
    /// The same, or none.
    JsonIfAny(usize),
}

/// What an endpoint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Live,
    Ready,
    Metrics,
    Describe,
    ListTokens,
    CreateToken,
    ImportTokens,
    ShowToken,
    ChangeToken,
    RotateToken,
    RevokeToken,
    EnableToken,
    DisableToken,
    RevokeAccount,
    Audit,
    ListUpstreams,
    PeekLimits,
    ResetLimits,
}

impl Endpoint {
    const fn new(method: Method, path: &'static str, needs: Needs, takes: Takes, act: Act) -> Self {
        Self { method, path, needs, takes, query: &[], act }
    }

    const fn get(path: &'static str, needs: Needs, act: Act) -> Self {
        Self::new(Method::GET, path, needs, Takes::Nothing, act)
    }

    const fn post(path: &'static str, takes: Takes, act: Act) -> Self {
        Self::new(Method::POST, path, WRITE, takes, act)
    }

    const fn asks(mut self, query: &'static [&'static str]) -> Self {
        self.query = query;
        self
    }
}

const READ: Needs = Needs::Role(Role::Read);
const WRITE: Needs = Needs::Role(Role::Write);
/// A token with all its permissions takes less than 10 KiB.
const JSON: Takes = Takes::Json(64 << 10);
const JSON_IF_ANY: Takes = Takes::JsonIfAny(64 << 10);

/// HEAD comes with GET.
pub(super) static ENDPOINTS: [Endpoint; 18] = [
    Endpoint::get("/livez", Needs::Nothing, Act::Live),
    Endpoint::get("/readyz", Needs::Nothing, Act::Ready),
    Endpoint::get("/metrics", Needs::Metrics, Act::Metrics),
    Endpoint::get("/api/openapi.json", READ, Act::Describe),
    Endpoint::get("/api/tokens", READ, Act::ListTokens).asks(&[
        "account",
        "name",
        "plan",
        "state",
        "permission",
        "after",
        "limit",
    ]),
    Endpoint::post("/api/tokens", JSON, Act::CreateToken),
    Endpoint::post("/api/import", Takes::Json(4 << 20), Act::ImportTokens),
    Endpoint::get("/api/tokens/{id}", READ, Act::ShowToken),
    Endpoint::new(Method::PATCH, "/api/tokens/{id}", WRITE, JSON, Act::ChangeToken),
    Endpoint::post("/api/tokens/{id}/rotate", JSON_IF_ANY, Act::RotateToken),
    Endpoint::post("/api/tokens/{id}/revoke", JSON_IF_ANY, Act::RevokeToken),
    Endpoint::post("/api/tokens/{id}/enable", JSON_IF_ANY, Act::EnableToken),
    Endpoint::post("/api/tokens/{id}/disable", JSON_IF_ANY, Act::DisableToken),
    Endpoint::post("/api/accounts/revoke", JSON, Act::RevokeAccount),
    Endpoint::get("/api/audit", READ, Act::Audit)
        .asks(&["token", "account", "by", "action", "since", "before", "limit"]),
    Endpoint::get("/api/upstreams", READ, Act::ListUpstreams),
    Endpoint::get("/api/limits/{id}", READ, Act::PeekLimits),
    Endpoint::new(Method::DELETE, "/api/limits/{id}", WRITE, Takes::Nothing, Act::ResetLimits),
];

/// What a path is for.
pub(super) enum Match<'p> {
    /// An endpoint, and the `{id}` in its path (else empty).
    Endpoint(&'static Endpoint, &'p str),
    /// The path takes other methods: these.
    OtherMethod(String),
    /// Nothing.
    Nothing,
}

/// Looks a request up.
pub(super) fn find<'p>(method: &Method, path: &'p str) -> Match<'p> {
    let asked = if *method == Method::HEAD { &Method::GET } else { method };
    let here: Vec<_> = ENDPOINTS.iter().filter_map(|entry| id_in(entry.path, path).map(|id| (entry, id))).collect();
    if let Some((entry, id)) = here.iter().find(|(entry, _)| entry.method == *asked) {
        return Match::Endpoint(entry, id);
    }
    if here.is_empty() {
        return Match::Nothing;
    }
    let mut methods: Vec<&str> = here.iter().map(|(entry, _)| entry.method.as_str()).collect();
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.sort_unstable();
    Match::OtherMethod(methods.join(", "))
}

/// What stands at the place of `{id}` (nothing, if the pattern has none), if the path matches.
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
    fn paths_and_methods_lead_to_their_endpoint() {
        let found = |method: Method, path: &str| match find(&method, path) {
            Match::Endpoint(endpoint, id) => format!("{:?} {id}", endpoint.act),
            Match::OtherMethod(allow) => allow,
            Match::Nothing => "-".to_owned(),
        };
        assert_eq!(found(Method::GET, "/metrics"), "Metrics ");
        assert_eq!(found(Method::HEAD, "/readyz"), "Ready ");
        assert_eq!(found(Method::POST, "/metrics"), "GET, HEAD");
        assert_eq!(found(Method::DELETE, "/api/limits/a.b-c_d"), "ResetLimits a.b-c_d");
        assert_eq!(found(Method::PUT, "/api/limits/x"), "DELETE, GET, HEAD");
        for nothing in
            ["", "/", "/metrics/", "//metrics", "/api/limits", "/api/limits/", "/api/limits/a/b", "/API/limits/a"]
        {
            assert_eq!(found(Method::GET, nothing), "-", "{nothing}");
        }
    }
}
