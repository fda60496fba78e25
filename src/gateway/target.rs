//! What a request is aimed at: host, path, route, and whether that can be said with certainty.

use http::header::{self, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Version};

use crate::body::IncomingBody;
use crate::config::{self, Config, Cors, RouteAccess};
use crate::forward::came_over_https;
use crate::listener::{Peer, Transport, is_authority};
use crate::response::Rejection;
use crate::route::{self, HostRoutes, PathFault, RouteMatch, RouteTable};

use super::snapshot::Snapshot;

/// Where a request goes.
pub(super) struct Target<'a> {
    /// Host and port as the client gave them; empty for an HTTP/1.0 client that gave none.
    pub(super) authority: Box<str>,
    /// What path and method lead to.
    pub(super) found: RouteMatch<'a>,
    /// `*`: no path, but the server as a whole (RFC 9112 §3.2.4).
    pub(super) is_whole_server: bool,
    /// A browser asks whether a page may send a request, and it may.
    pub(super) preflight: Option<Preflight<'a>>,
    /// Why the path can't be forwarded. It depends on the route, so it is said to those who may know of it.
    pub(super) fault: Option<Rejection>,
    /// Path and query as the upstream sees them, where they are not the client's own.
    pub(super) rewritten: Option<PathAndQuery>,
    /// The methods that the path's routes take, if they don't take all.
    pub(super) allow: Option<&'a HeaderValue>,
}

/// What a browser asks before it lets a page send a request.
pub(super) struct Preflight<'a> {
    /// Its route, for the log.
    pub(super) route: Option<usize>,
    pub(super) cors: &'a Cors,
    pub(super) method: Method,
}

impl<'a> Target<'a> {
    /// Judges transport, host and path.
    pub(super) fn judge(
        snapshot: &'a Snapshot,
        request: &Request<IncomingBody>,
        peer: &Peer,
    ) -> Result<Self, Rejection> {
        let Snapshot { config, table, tls, .. } = snapshot;
        let authority = authority(request)?;
        let shown = match &peer.transport {
            Transport::Tls(certificate) => Some(certificate),
            Transport::ClearFromProxy if came_over_https(request.headers()) => None,
            Transport::Clear | Transport::ClearFromProxy => {
                let is_known = table.names(host_of(authority)) || tls.certificates.are_for(host_of(authority));
                return Err(refuse_plain(config, request, authority, is_known));
            }
        };
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Err(Rejection::Method);
        }
        if shown.is_some_and(|certificate| !certificate.serves(|| host_of(authority))) {
            return Err(Rejection::Misdirected);
        }
        let path = request.uri().path();
        if path == "*" && *request.method() == Method::OPTIONS {
            let (authority, found) = (authority.into(), RouteMatch::Nothing);
            let (preflight, fault, rewritten, allow) = (None, None, None, None);
            return Ok(Self { authority, found, is_whole_server: true, preflight, fault, rewritten, allow });
        }
        let judged = route::judge(path).map_err(Rejection::Path)?;
        let routes = table.of_host(host_of(authority));
        let found = routes.find(&judged.matched, request.method(), request.headers());
        let index = index_of(found);
        let allowed = index.map(|index| config.routes[index].allowed_forms).unwrap_or_default();
        let mut fault =
            Some(judged.forms.without(allowed)).filter(|forms| !forms.is_empty()).map(Rejection::AmbiguousPath);
        let is_options = *request.method() == Method::OPTIONS;
        let allow = if is_options { routes.allow(&judged.matched) } else { None };
        let rewritten = index.and_then(|index| table.rewritten(index, &judged.matched));
        let rewritten = rewritten.and_then(|path| {
            let onward = onward_target(&path, request.uri().query(), allowed);
            onward.map_err(|why| fault.get_or_insert(why)).ok()
        });
        let preflight = preflight(config, table, routes, &judged.matched, request);
        Ok(Self { authority: authority.into(), found, is_whole_server: false, preflight, fault, rewritten, allow })
    }

    /// The index of the route found.
    pub(super) fn route(&self) -> Option<usize> {
        index_of(self.found)
    }
}

fn index_of(found: RouteMatch<'_>) -> Option<usize> {
    match found {
        RouteMatch::Route(index) => Some(index),
        RouteMatch::WrongMethod(_) | RouteMatch::Nothing => None,
    }
}

/// A preflight for what is allowed; one that is refused is a request like any other. A public route answers for itself. What the others
/// allow is allowed for every path, because the answer must not show which of them have a route: the request itself needs a token, and
/// its answer is read by the pages that its route names.
fn preflight<'a>(
    config: &'a Config,
    table: &'a RouteTable,
    routes: &HostRoutes,
    path: &str,
    request: &Request<IncomingBody>,
) -> Option<Preflight<'a>> {
    let headers = request.headers();
    if *request.method() != Method::OPTIONS {
        return None;
    }
    let origin = headers.get(header::ORIGIN)?;
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    let method = Method::from_bytes(asked.as_bytes()).ok()?;
    let cors_of = |route: usize| config.routes[route].cors.as_ref().filter(|cors| cors.allows(origin));
    let route = routes.candidates(path, &method).find(|route| cors_of(*route).is_some());
    let is_public = routes.candidates(path, &method).any(|route| config.routes[route].access == RouteAccess::Public);
    let cors = match is_public {
        true => cors_of(route?),
        false => table.cors().filter(|cors| cors.allows(origin)),
    };
    Some(Preflight { route, cors: cors?, method })
}

/// A rewritten path with the client's query. Put together anew, it could hold a form that its parts did not.
fn onward_target(path: &str, query: Option<&str>, allowed: config::PathForms) -> Result<PathAndQuery, Rejection> {
    let judged = route::judge(path).map_err(Rejection::Path)?;
    let forms = judged.forms.without(allowed);
    if !forms.is_empty() {
        return Err(Rejection::AmbiguousPath(forms));
    }
    let whole = match query {
        Some(query) => PathAndQuery::try_from([path, "?", query].concat()),
        None => PathAndQuery::try_from(path),
    };
    whole.map_err(|_| Rejection::Path(PathFault::MalformedEscape))
}

/// The one host of a request: the target's if it names one, else `Host` (RFC 9112 §3.2.2, RFC 9113 §8.3.1).
pub(super) fn authority(request: &Request<IncomingBody>) -> Result<&str, Rejection> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().map(|value| value.to_str().map_err(|_| Rejection::Authority)).transpose()?;
    if hosts.next().is_some() {
        return Err(Rejection::Authority);
    }
    let authority = match request.uri().authority() {
        Some(named) => {
            let is_http2 = request.version() == Version::HTTP_2;
            if is_http2 && host.is_some_and(|host| !host.eq_ignore_ascii_case(named.as_str())) {
                return Err(Rejection::Authority);
            }
            named.as_str()
        }
        None => host.unwrap_or_default(),
    };
    if is_authority(authority.as_bytes()) || (authority.is_empty() && request.version() == Version::HTTP_10) {
        // An empty port is none (RFC 3986 §6.2.3).
        Ok(authority.strip_suffix(':').unwrap_or(authority))
    } else {
        Err(Rejection::Authority)
    }
}

/// An authority without its port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// On the plain listener: 403, or a redirect where that is configured and nothing secret has been sent in clear already.
/// `is_known`: the host is one of ours. Any other may be somebody's trap.
fn refuse_plain(config: &Config, request: &Request<IncomingBody>, authority: &str, is_known: bool) -> Rejection {
    let headers = request.headers();
    let carries_credential = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE]
        .iter()
        .any(|name| headers.contains_key(name))
        || request.uri().query().is_some_and(|query| query.contains("token"));
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if !config.listen.redirect || carries_credential || !is_read || !is_known {
        return Rejection::HttpsRequired;
    }
    let port = match config.listen.https.port() {
        443 => String::new(),
        port => format!(":{port}"),
    };
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    match HeaderValue::try_from(format!("https://{}{port}{target}", host_of(authority))) {
        Ok(location) => Rejection::Redirect(location),
        Err(_) => Rejection::HttpsRequired,
    }
}
