//! What a request is aimed at: host, path, route, and whether that can be said with certainty.

use std::borrow::Cow;

use http::header::{self, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Version};

use crate::body::IncomingBody;
use crate::config::{self, Config};
use crate::listener::{Certificates, Peer, is_authority};
use crate::response::Rejection;
use crate::route::{self, HostRoutes, RouteMatch, RouteTable};

/// Where a request goes.
pub(super) struct Target<'a> {
    /// Host and port as the client gave them; empty for an HTTP/1.0 client that gave none.
    pub(super) authority: Box<str>,
    /// What path and method lead to.
    pub(super) found: RouteMatch<'a>,
    /// `*`: no path, but the server as a whole (RFC 9112 §3.2.4).
    pub(super) is_whole_server: bool,
    /// A browser asks whether a page may send a request with this method to this route, which allows it.
    pub(super) preflight: Option<(usize, Method)>,
    /// Path and query as the upstream sees them, where they are not the client's own.
    pub(super) rewritten: Option<PathAndQuery>,
    /// The methods that the path's routes take, if they don't take all.
    pub(super) allow: Option<&'a HeaderValue>,
}

impl<'a> Target<'a> {
    /// Judges transport, host and path.
    pub(super) fn judge(
        config: &Config,
        table: &'a RouteTable,
        certificates: &Certificates,
        request: &Request<IncomingBody>,
        peer: &Peer,
    ) -> Result<Self, Rejection> {
        let authority = authority(request)?;
        let Some(certificate) = peer.certificate else {
            return Err(refuse_plain(config, request, &authority));
        };
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Err(Rejection::Method);
        }
        // A client may reuse a connection for any host on the certificate that it was shown, and for no other (RFC 9113 §9.1.2).
        if certificates.are_several() && certificates.index_for(host_of(&authority)) != certificate {
            return Err(Rejection::Misdirected);
        }
        let path = request.uri().path();
        if path == "*" && *request.method() == Method::OPTIONS {
            let (authority, found) = (authority.into(), RouteMatch::Nothing);
            return Ok(Self { authority, found, is_whole_server: true, preflight: None, rewritten: None, allow: None });
        }
        let judged = route::judge(path).map_err(Rejection::Path)?;
        let routes = table.of_host(host_of(&authority));
        let found = routes.find(&judged.matched, request.method(), request.headers());
        let index = index_of(found);
        let allowed = index.map(|index| config.routes[index].allowed_forms).unwrap_or_default();
        if !judged.forms.without(allowed).is_empty() {
            return Err(Rejection::AmbiguousPath);
        }
        let is_options = *request.method() == Method::OPTIONS;
        let allow = if is_options { routes.allow(&judged.matched) } else { None };
        let rewritten = index.and_then(|index| table.rewritten(index, &judged.matched));
        let rewritten = rewritten.map(|path| onward_target(&path, request.uri().query(), allowed)).transpose()?;
        let preflight = preflight(config, routes, &judged.matched, request);
        Ok(Self { authority: authority.into(), found, is_whole_server: false, preflight, rewritten, allow })
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

/// The route that a preflight asks about, if it allows what is asked; a preflight that is refused is a request like any other.
fn preflight(
    config: &Config,
    routes: &HostRoutes,
    path: &str,
    request: &Request<IncomingBody>,
) -> Option<(usize, Method)> {
    let headers = request.headers();
    if *request.method() != Method::OPTIONS {
        return None;
    }
    let origin = headers.get(header::ORIGIN)?;
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    let asked = Method::from_bytes(asked.as_bytes()).ok()?;
    let allows = |route: &usize| config.routes[*route].cors.as_ref().is_some_and(|cors| cors.allows(origin));
    let route = routes.candidates(path, &asked).find(allows)?;
    Some((route, asked))
}

/// A rewritten path with the client's query. Put together anew, it could hold a form that its parts did not.
fn onward_target(path: &str, query: Option<&str>, allowed: config::PathForms) -> Result<PathAndQuery, Rejection> {
    let judged = route::judge(path).map_err(Rejection::Path)?;
    if !judged.forms.without(allowed).is_empty() {
        return Err(Rejection::AmbiguousPath);
    }
    let whole = match query {
        Some(query) => PathAndQuery::try_from([path, "?", query].concat()),
        None => PathAndQuery::try_from(path),
    };
    whole.map_err(|_| Rejection::AmbiguousPath)
}

/// The one host of a request: the target's if it names one, else `Host` (RFC 9112 §3.2.2, RFC 9113 §8.3.1).
fn authority(request: &Request<IncomingBody>) -> Result<Cow<'_, str>, Rejection> {
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
        Ok(Cow::Borrowed(authority))
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
fn refuse_plain(config: &Config, request: &Request<IncomingBody>, authority: &str) -> Rejection {
    let headers = request.headers();
    let carries_credential = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE]
        .iter()
        .any(|name| headers.contains_key(name))
        || request.uri().query().is_some_and(|query| query.contains("token"));
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if !config.listen.redirect || carries_credential || !is_read || authority.is_empty() {
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
